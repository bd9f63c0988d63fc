#include "motley/kernels/cuda/expert_layer.h"

#include "motley/kernels/cuda/token_sum.h"

namespace motley::cuda {
namespace {

struct ForwardScratch {
  __nv_bfloat16 *activated, *rows;
  ForwardScratch(const ExpertShape& shape, Workspace& workspace)
      : activated(workspace.take<__nv_bfloat16>(size_t(shape.max_rows) * shape.expert_width)),
        rows(workspace.take<__nv_bfloat16>(size_t(shape.max_rows) * shape.model_width)) {}
};

struct BackwardScratch {
  __nv_bfloat16 *dhidden, *weighted, *rows;
  float* gate_parts;
  BackwardScratch(const ExpertShape& shape, Workspace& workspace)
      : dhidden(workspace.take<__nv_bfloat16>(size_t(shape.max_rows) * 2 * shape.expert_width)),
        weighted(workspace.take<__nv_bfloat16>(size_t(shape.max_rows) * shape.expert_width)),
        rows(workspace.take<__nv_bfloat16>(size_t(shape.max_rows) * shape.model_width)),
        gate_parts(workspace.take<float>(size_t(shape.max_rows) * sm90::num_gate_parts(shape))) {}
};

}  // namespace

size_t expert_layer_forward_workspace_bytes(const ExpertShape& shape) {
  Workspace sizes(nullptr);
  ForwardScratch scratch(shape, sizes);
  return sizes.used();
}

void expert_layer_forward(const ExpertShape& shape, const ExpertPlan& plan, const int* token_rows,
                          const ExpertLayerForward& layer, void* workspace, cudaStream_t stream) {
  Workspace memory(workspace);
  const ForwardScratch scratch(shape, memory);
  sm90::expert_up(shape, plan, layer.activation, layer.x, shape.model_width, layer.gate_up, layer.hidden,
                  scratch.activated, stream);
  sm90::expert_down(shape, plan, scratch.activated, layer.down, scratch.rows, stream);
  token_sum(scratch.rows, layer.gate_weights, token_rows, shape.num_tokens, shape.top_k, shape.model_width,
            layer.y, stream);
}

size_t expert_layer_backward_workspace_bytes(const ExpertShape& shape) {
  Workspace sizes(nullptr);
  BackwardScratch scratch(shape, sizes);
  return sizes.used();
}

void expert_layer_backward(const ExpertShape& shape, const ExpertPlan& plan, const int* token_rows,
                           const ExpertLayerBackward& layer, void* workspace, cudaStream_t stream) {
  Workspace memory(workspace);
  const BackwardScratch scratch(shape, memory);
  sm90::expert_dhidden(shape, plan, layer.activation, layer.dy, shape.model_width, layer.down, layer.hidden,
                       layer.gate_weights, scratch.dhidden, scratch.weighted, scratch.gate_parts, stream);
  gate_weight_sum(scratch.gate_parts, sm90::num_gate_parts(shape), shape.max_rows, token_rows,
                  shape.num_tokens * shape.top_k, layer.dgate_weights, stream);
  sm90::expert_dx(shape, plan, scratch.dhidden, layer.gate_up, scratch.rows, stream);
  token_sum(scratch.rows, nullptr, token_rows, shape.num_tokens, shape.top_k, shape.model_width, layer.dx,
            stream);
  sm90::expert_ddown(shape, plan, layer.dy, shape.model_width, scratch.weighted, layer.ddown,
                     layer.ddown_stride, stream);
  sm90::expert_dgate_up(shape, plan, layer.x, shape.model_width, scratch.dhidden, layer.dgate_up,
                        layer.dgate_up_stride, stream);
}

}  // namespace motley::cuda
