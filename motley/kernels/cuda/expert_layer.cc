#include "motley/kernels/cuda/expert_layer.h"

#include "motley/kernels/cuda/cuda_check.h"
#include "motley/kernels/cuda/sm90/decode.h"
#include "motley/kernels/cuda/token_sum.h"

namespace motley::cuda {
namespace {

size_t rows_bytes(const ExpertShape& shape, int width) {
  return size_t(shape.max_rows) * width * element_bytes(shape.type);
}

void matmul(const ExpertLayer& layer, const void* x, int depth, PlacedWeights weight, bool transposed,
            PlacedBias bias, int width, void* out, cudaStream_t stream) {
  expert_matmul(layer.family, layer.shape, layer.plan,
                {x, depth, false, weight, transposed, bias, depth, width, out}, stream);
}

// Places without an expert are passed over by the products.
void clear_places(const ExpertLayer& layer, const Gradient& gradient, long size, cudaStream_t stream) {
  const bool all_written = !layer.plan.place_of_expert && layer.shape.num_places == layer.shape.num_experts;
  if (!gradient.data || gradient.accumulate || all_written) return;
  const size_t element = gradient.fp32 ? 4 : element_bytes(layer.shape.type);
  MOTLEY_CUDA_CHECK(cudaMemset2DAsync(gradient.data, element * gradient.stride, 0, element * size,
                                      layer.shape.num_places, stream));
}

void outer(const ExpertLayer& layer, const OuterProduct& product, cudaStream_t stream) {
  if (!product.out.data) return;
  clear_places(layer, product.out, long(product.row_width) * product.gathered_width, stream);
  expert_outer(layer.family, layer.shape, layer.plan, product, stream);
}

}  // namespace

size_t expert_rows_workspace_bytes(const ExpertShape& shape) {
  Workspace space(nullptr);
  space.take_bytes(rows_bytes(shape, shape.expert_width));
  return space.used();
}

void expert_rows(const ExpertLayer& layer, const void* x, long x_stride, bool x_by_token, void* hidden,
                 void* rows, void* workspace, cudaStream_t stream) {
  const ExpertShape& shape = layer.shape;
  Workspace space(workspace);
  void* activated = space.take_bytes(rows_bytes(shape, shape.expert_width));
  expert_up(layer.family, shape, layer.plan,
            {x, x_stride, x_by_token, layer.gate_up, layer.gate_up_bias, layer.activation, hidden, activated},
            stream);
  matmul(layer, activated, shape.expert_width, layer.down, true, layer.down_bias, shape.model_width, rows,
         stream);
}

bool few_tokens(Family family, const ExpertShape& shape, const ZeroExpertLayer* zero_experts) {
  return family == Family::kSm90 && sm90::decode_fits(shape) &&
         (!zero_experts || zero_experts->num_constant == 0 || zero_experts->parameters == Element::kBFloat16);
}

size_t expert_layer_forward_workspace_bytes(const ExpertShape& shape) {
  const size_t choices = size_t(shape.num_tokens) * shape.top_k;
  Workspace space(nullptr);
  space.take_bytes(rows_bytes(shape, shape.model_width));
  space.take_bytes(expert_rows_workspace_bytes(shape));
  space.take<float>(2 * choices);  // mixes of a few tokens, or present rows
  return space.used();
}

void expert_layer_forward(const ExpertLayer& layer, const ExpertLayerForward& forward, void* workspace,
                          cudaStream_t stream) {
  const ExpertShape& shape = layer.shape;
  const size_t choices = size_t(shape.num_tokens) * shape.top_k;
  Workspace space(workspace);
  void* rows = space.take_bytes(rows_bytes(shape, shape.model_width));
  void* rest = space.take_bytes(expert_rows_workspace_bytes(shape));
  if (!forward.many_tokens && !forward.hidden && few_tokens(layer.family, shape, forward.zero_experts)) {
    sm90::expert_decode(layer,
                        {forward.x, forward.x_stride, forward.slots, forward.gate_weights, rest, rows,
                         forward.y, forward.y_fp32, forward.zero_experts, space.take<float>(2 * choices)},
                        stream);
    return;
  }
  const int* token_rows = layer.token_rows;
  if (layer.plan.place_of_expert) {
    int* present = space.take<int>(choices);
    present_rows(shape, layer.plan, layer.token_rows, present, stream);
    token_rows = present;
  }
  const void* x = forward.x;
  long x_stride = forward.x_stride;
  const bool copies = wants_up_copy(layer.family, shape.expert_width);
  if (copies) {  // where the output rows will be
    copy_to_rows(shape, token_rows, x, x_stride, rows, stream);
    x = rows, x_stride = shape.model_width;
  }
  expert_rows(layer, x, x_stride, !copies, forward.hidden, rows, rest, stream);
  if (forward.zero_experts)
    zero_experts(*forward.zero_experts, {rows, token_rows, forward.y, forward.y_fp32}, stream);
  else
    token_sum(shape.type, rows, forward.gate_weights, token_rows, shape.num_tokens, shape.top_k,
              shape.model_width, forward.y, forward.y_fp32, stream);
}

size_t expert_layer_backward_input_workspace_bytes(const ExpertShape& shape) {
  Workspace space(nullptr);
  space.take_bytes(rows_bytes(shape, shape.model_width));
  space.take<float>(size_t(shape.max_rows) * num_gate_parts(shape.expert_width));
  space.take<int>(size_t(shape.num_tokens) * shape.top_k);
  space.take<int>(outer_scratch_size(shape, shape.expert_width, shape.model_width));
  return space.used();
}

void expert_layer_backward_input(const ExpertLayer& layer, const ExpertLayerBackwardInput& backward,
                                 void* workspace, cudaStream_t stream) {
  const ExpertShape& shape = layer.shape;
  const int D = shape.model_width, F = shape.expert_width, parts = num_gate_parts(F);
  Workspace space(workspace);
  void* rows = space.take_bytes(rows_bytes(shape, D));
  float* gate_parts = space.take<float>(size_t(shape.max_rows) * parts);
  int* present = space.take<int>(size_t(shape.num_tokens) * shape.top_k);
  const int* token_rows = layer.token_rows;
  if (layer.plan.place_of_expert) {
    present_rows(shape, layer.plan, layer.token_rows, present, stream);
    token_rows = present;
  }
  const bool copies = backward.down.data && wants_shared_copy(layer.family, F);
  const void* dy = backward.dy;
  long dy_stride = backward.dy_stride;
  if (copies) {
    copy_to_rows(shape, token_rows, dy, dy_stride, rows, stream);
    dy = rows, dy_stride = D;
  }
  expert_dhidden(layer.family, shape, layer.plan,
                 {dy, dy_stride, !copies, layer.down, layer.activation, backward.hidden,
                  backward.gate_weights, backward.dhidden, backward.weighted, gate_parts},
                 stream);
  gate_weight_sum(shape, layer.plan, gate_parts, parts, token_rows, backward.dy, backward.dy_stride,
                  layer.down_bias, backward.dgate_weights, stream);
  outer(layer,
        {backward.weighted, F, dy, dy_stride, !copies, D, true, backward.down,
         space.take<int>(outer_scratch_size(shape, F, D))},
        stream);
  matmul(layer, backward.dhidden, layer.activation.hidden_width(F), layer.gate_up, false, {}, D, rows,
         stream);
  token_sum(shape.type, rows, nullptr, token_rows, shape.num_tokens, shape.top_k, D, backward.dx,
            backward.dx_fp32, stream);
}

size_t expert_layer_backward_weight_workspace_bytes(const ExpertLayer& layer) {
  const ExpertShape& shape = layer.shape;
  const int hidden_width = layer.activation.hidden_width(shape.expert_width);
  Workspace space(nullptr);
  space.take<int>(outer_scratch_size(shape, hidden_width, shape.model_width));
  if (wants_copy(layer.family, hidden_width)) {
    space.take_bytes(rows_bytes(shape, shape.model_width));
    space.take<int>(size_t(shape.num_tokens) * shape.top_k);
  }
  return space.used();
}

void expert_layer_backward_weight(const ExpertLayer& layer, const ExpertLayerBackwardWeight& backward,
                                  void* workspace, cudaStream_t stream) {
  const ExpertShape& shape = layer.shape;
  const int D = shape.model_width, F = shape.expert_width, G = layer.activation.hidden_width(F);
  Workspace space(workspace);
  int* dealt = space.take<int>(outer_scratch_size(shape, G, D));
  void* rows = nullptr;
  const int* token_rows = layer.token_rows;
  if (wants_copy(layer.family, G)) {
    rows = space.take_bytes(rows_bytes(shape, D));
    if (!token_rows && (backward.down.data || backward.gate_up.data)) {
      int* inverted = space.take<int>(size_t(shape.num_tokens) * shape.top_k);
      invert_rows(shape, layer.plan.row_assignment, inverted, stream);
      token_rows = inverted;
    }
  }
  const auto of_tokens = [&](const void* by_row, int width, const void* tokens, long stride, bool token_first,
                             const Gradient& gradient) {
    if (!gradient.data) return;
    const bool copies = wants_copy(layer.family, width);
    if (copies) {
      copy_to_rows(shape, token_rows, tokens, stride, rows, stream);
      tokens = rows, stride = D;
    }
    outer(layer, {by_row, width, tokens, stride, !copies, D, token_first, gradient, dealt}, stream);
  };
  of_tokens(backward.weighted, F, backward.dy, backward.dy_stride, true, backward.down);
  of_tokens(backward.dhidden, G, backward.x, backward.x_stride, false, backward.gate_up);
  clear_places(layer, backward.down_bias, D, stream);
  clear_places(layer, backward.gate_up_bias, G, stream);
  if (backward.down_bias.data)
    expert_sum(shape, layer.plan,
               {backward.dy, backward.dy_stride, true, D, backward.gate_weights, backward.down_bias}, stream);
  if (backward.gate_up_bias.data)
    expert_sum(shape, layer.plan, {backward.dhidden, G, false, G, nullptr, backward.gate_up_bias}, stream);
}

size_t tile_schedule_bytes(int max_rows, int num_experts) {
  Workspace space(nullptr);
  space.take<RowTile>(max_row_tiles(max_rows, num_experts));
  space.take<int>(1);
  return space.used();
}

TileSchedule take_tile_schedule(int max_rows, int num_experts, void* memory) {
  Workspace space(memory);
  RowTile* tiles = space.take<RowTile>(max_row_tiles(max_rows, num_experts));
  return {tiles, space.take<int>(1)};
}

}  // namespace motley::cuda
