// Every product of the expert layer, each against a plain kernel over the very inputs it had, element by
// element; then the layer as a whole, which must give the same bits.
#include <cmath>
#include <functional>
#include <string>

#include "motley/kernels/cuda/expert_layer.h"
#include "motley/kernels/cuda/token_sum.h"
#include "tests/kernels_cuda/reference.cuh"
#include "tests/kernels_cuda/tests.h"
#include "tests/kernels_cuda/values.h"

namespace motley::cuda::test {
namespace {

enum class Routing { kUniform, kDrops, kHalfEmpty, kOne, kZipf };

struct Case {
  const char* name;
  int tokens, width, expert_width, experts, top_k;
  Routing routing = Routing::kUniform;
  ActivationKind activation = ActivationKind::kSwiGlu;
  bool scattered_places = false, bias = false;
};

std::mt19937 generator(7);

std::vector<int> make_slots(const Case& c) {
  std::vector<int> slots(size_t(c.tokens) * c.top_k);
  std::vector<double> share(c.experts, 1.0);
  for (int e = 0; e < c.experts; ++e) {
    if (c.routing == Routing::kZipf) share[e] = std::pow(e + 1.0, -1.2);
    if (c.routing == Routing::kHalfEmpty && e % 2) share[e] = 0;
    if (c.routing == Routing::kOne) share[e] = e == c.experts / 2;
  }
  std::discrete_distribution<int> pick(share.begin(), share.end());
  for (int& slot : slots) {
    slot = pick(generator);
    if (c.routing == Routing::kDrops && generator() % 4 == 0) slot = generator() % 2 ? -1 : c.experts;
  }
  return slots;
}

constexpr uint16_t kPoisonBits = 0xffff;
constexpr int kBlock = 256;
int blocks(size_t count) { return static_cast<int>((count + kBlock - 1) / kBlock); }

template <class T>
bool same_bits(const DeviceArray<T>& one, const DeviceArray<T>& two) {
  const std::vector<T> a = one.host(), b = two.host();
  return a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// The arrays of a case, and its checks.
class Run {
 public:
  Run(const Case& one, Family family, DataType type, Report& to)
      : c(one),
        report(to),
        D(c.width),
        F(c.expert_width),
        activation{c.activation, 1.5f, 1.0f},
        G(activation.hidden_width(F)),
        E(c.experts),
        K(c.top_k),
        T(c.tokens),
        R(T * K),
        gap(c.scattered_places ? 64 : 0),
        up_stride(long(G) * D + gap),
        down_stride(long(D) * F + gap),
        x_stride(D + gap),
        x(random_values(generator, type, T * x_stride, 1)),
        dy(random_values(generator, type, T * x_stride, 1)),
        gate_up(random_values(generator, type, E * up_stride, 1 / std::sqrt(D))),
        down(random_values(generator, type, E * down_stride, 1 / std::sqrt(F))),
        up_bias(random_values(generator, type, size_t(E) * G, 0.5)),
        down_bias(random_values(generator, type, size_t(E) * D, 0.5)),
        gate_weights(make_weights()),
        places(make_places()),
        slots(make_slots(c)),
        row_assignment(R),
        expert_offset(E + 1),
        token_rows(R),
        schedule_memory(tile_schedule_bytes(R, E)),
        device_places(places) {
    shape = {T, K, E, E, D, F, R, type};
    const TileSchedule schedule = take_tile_schedule(R, E, schedule_memory.get());
    DeviceArray<char> workspace(routing_plan_workspace_bytes(R, E));
    DeviceArray<int> device_slots(slots);
    routing_plan(device_slots.get(), R, E, {row_assignment.get(), expert_offset.get(), token_rows.get()},
                 schedule, workspace.get(), nullptr);
    if (c.scattered_places) tile_schedule(expert_offset.get(), E, device_places.get(), schedule, nullptr);
    layer = {family,
             shape,
             {row_assignment.get(), expert_offset.get(), c.scattered_places ? device_places.get() : nullptr,
              schedule},
             token_rows.get(),
             activation,
             {gate_up.get(), up_stride},
             {down.get(), down_stride},
             {c.bias ? up_bias.get() : nullptr, G},
             {c.bias ? down_bias.get() : nullptr, D}};
    offset = expert_offset.host();
    assignment = row_assignment.host();
    num_rows = offset[E];
    row_place.resize(num_rows);
    for (int e = 0; e < E; ++e)
      for (int r = offset[e]; r < offset[e + 1]; ++r) row_place[r] = places[e];
  }
  void run();

 private:
  std::vector<float> make_weights() const {
    std::vector<float> values(size_t(c.tokens) * c.top_k);
    for (float& weight : values) weight = 0.1f + generator() % 1000 * 1e-3f;
    return values;
  }
  std::vector<int> make_places() const {
    std::vector<int> at(c.experts);
    for (int e = 0; e < c.experts; ++e) at[e] = !c.scattered_places ? e : e % 4 == 2 ? -1 : c.experts - 1 - e;
    return at;
  }
  std::vector<float> floats(const Values& values) const {
    std::vector<float> out(values.size());
    for (size_t i = 0; i < out.size(); ++i) out[i] = to_float(shape.type, values[i]);
    return out;
  }
  std::vector<float> reference(const uint16_t* a, long stride, int depth, int top_k, Strided w,
                               PlacedBias bias, int width) const {
    DeviceArray<float> out(size_t(num_rows) * width);
    DeviceArray<int> device_row_place(row_place);
    if (num_rows)
      reference_rows<<<blocks(out.size()), kBlock>>>(
          shape.type, a, stride, depth, row_assignment.get(), top_k, device_row_place.get(), w,
          static_cast<const uint16_t*>(bias.data), bias.stride, width, num_rows, out.get());
    return out.host();
  }
  void rows_close(const DeviceArray<uint16_t>& got, const std::vector<float>& expected, int width,
                  float relative, float absolute, const char* what);
  struct Gathered {
    const uint16_t* data;
    long stride;
    bool by_token;
    int width;
  };
  void outer_close(const Gathered& gathered, const uint16_t* by_row, int width, bool transposed,
                   const char* what, const std::function<void(Gradient)>& compute);
  void bias_close(bool down_side, const DeviceArray<uint16_t>& dhidden);
  void check_whole(const DeviceArray<uint16_t>& hidden, const DeviceArray<uint16_t>& rows,
                   const DeviceArray<uint16_t>& dhidden, const DeviceArray<uint16_t>& weighted,
                   const DeviceArray<uint16_t>& dx_rows, const std::vector<float>& gate_gradients);

  const Case& c;
  Report& report;
  const int D, F;
  const Activation activation;
  const int G, E, K, T, R;
  const long gap, up_stride, down_stride, x_stride;  // places and tokens lie apart by more than their size
  DeviceArray<uint16_t> x, dy, gate_up, down, up_bias, down_bias;
  DeviceArray<float> gate_weights;
  const std::vector<int> places, slots;
  DeviceArray<int> row_assignment, expert_offset, token_rows;
  DeviceArray<char> schedule_memory;
  DeviceArray<int> device_places;
  ExpertShape shape;
  ExpertLayer layer;
  int num_rows = 0;
  std::vector<int> offset, assignment, row_place;
};

// A by-row result is right where its expert is present and untouched elsewhere.
void Run::rows_close(const DeviceArray<uint16_t>& got, const std::vector<float>& expected, int width,
                     float relative, float absolute, const char* what) {
  const Values bits = got.host();
  std::vector<float> present, wanted;
  bool untouched = true;
  for (size_t i = 0; i < bits.size(); ++i) {
    const size_t row = i / width;
    if (row < row_place.size() && row_place[row] >= 0) {
      present.push_back(to_float(shape.type, bits[i]));
      wanted.push_back(expected[i]);
    } else {
      untouched &= bits[i] == kPoisonBits;
    }
  }
  report.check(close(present, wanted, relative, absolute, what), what);
  report.check(untouched && got.guard_intact(), (std::string(what) + " outside its rows").c_str());
}

// Weight gradients in every form that a caller may ask for: fresh or added, in the rows' type or fp32.
void Run::outer_close(const Gathered& gathered, const uint16_t* by_row, int width, bool transposed,
                      const char* what, const std::function<void(Gradient)>& compute) {
  const int height = gathered.width;
  const long size = long(height) * width, place_stride = size + gap;
  DeviceArray<float> out(size_t(E) * size);
  reference_outer<<<blocks(out.size()), kBlock>>>(shape.type, gathered.data, gathered.stride, height,
                                                  row_assignment.get(), gathered.by_token ? K : 0,
                                                  expert_offset.get(), by_row, width, E, out.get());
  const std::vector<float> expected = out.host();
  for (const bool fp32 : {false, true})
    for (const bool accumulate : {false, true}) {
      const size_t count = E * place_stride;
      const Values before = random_values(generator, shape.type, count, 1);
      const std::vector<float> before_floats = floats(before);
      DeviceArray<uint16_t> rounded(fp32 ? 0 : count);
      DeviceArray<float> exact(fp32 ? count : 0);
      if (accumulate && fp32)
        MOTLEY_CUDA_CHECK(
            cudaMemcpy(exact.get(), before_floats.data(), exact.bytes(), cudaMemcpyHostToDevice));
      if (accumulate && !fp32)
        MOTLEY_CUDA_CHECK(cudaMemcpy(rounded.get(), before.data(), rounded.bytes(), cudaMemcpyHostToDevice));
      void* data = fp32 ? static_cast<void*>(exact.get()) : rounded.get();
      compute({data, place_stride, fp32, accumulate});
      MOTLEY_CUDA_CHECK(cudaDeviceSynchronize());
      const std::vector<float> all = fp32 ? exact.host() : floats(rounded.host());
      std::vector<float> present, wanted;
      std::vector<bool> has_expert(E);
      bool outside = true;
      for (int e = 0; e < E; ++e) {
        if (places[e] < 0) continue;
        has_expert[places[e]] = true;
        for (int m = 0; m < height; ++m)
          for (int n = 0; n < width; ++n) {
            const long at =
                places[e] * place_stride + (transposed ? long(n) * height + m : long(m) * width + n);
            present.push_back(all[at]);
            wanted.push_back(expected[(size_t(e) * height + m) * width + n] +
                             (accumulate ? before_floats[at] : 0));
          }
      }
      for (int place = 0; place < E; ++place)  // without an expert: zeros; between places: as before
        for (long i = has_expert[place] ? size : 0; i < place_stride; ++i) {
          const float value = all[place * place_stride + i];
          outside &= accumulate ? value == before_floats[place * place_stride + i]
                     : i < size ? value == 0
                                : std::isnan(value);
        }
      const std::string name = std::string(what) + (fp32 ? " fp32" : "") + (accumulate ? " accumulated" : "");
      report.check(close(present, wanted, fp32 ? 1e-4f : 1 / 256.f, fp32 ? 1e-4f : 1e-3f, name.c_str()),
                   name.c_str());
      report.check(outside && rounded.guard_intact() && exact.guard_intact(),
                   (name + " outside its places").c_str());
    }
}

void Run::bias_close(bool down_side, const DeviceArray<uint16_t>& dhidden) {
  const int width = down_side ? D : G;
  const std::vector<float> values = floats((down_side ? dy : dhidden).host()), weights = gate_weights.host();
  DeviceArray<char> weight_scratch(expert_layer_backward_weight_workspace_bytes(layer));
  for (const bool accumulate : {false, true}) {
    std::vector<float> expected(size_t(E) * width, accumulate ? 3.f : 0.f);
    for (int r = 0; r < num_rows; ++r)
      if (row_place[r] >= 0)
        for (int n = 0; n < width; ++n)
          expected[size_t(row_place[r]) * width + n] +=
              down_side ? weights[assignment[r]] * values[assignment[r] / K * x_stride + n]
                        : values[size_t(r) * width + n];
    DeviceArray<float> got(std::vector<float>(expected.size(), 3.f));
    const Gradient gradient{got.get(), width, true, accumulate};
    ExpertLayerBackwardWeight backward{dy.get(),           x_stride,      x.get(), x_stride,
                                       gate_weights.get(), dhidden.get(), nullptr};
    (down_side ? backward.down_bias : backward.gate_up_bias) = gradient;
    expert_layer_backward_weight(layer, backward, weight_scratch.get(), nullptr);
    MOTLEY_CUDA_CHECK(cudaDeviceSynchronize());
    report.check(close(got.host(), expected, 1e-4f, 1e-4f, "bias gradients") && got.guard_intact(),
                 "bias gradients");
  }
}

void Run::run() {
  const auto synchronize = [] { MOTLEY_CUDA_CHECK(cudaDeviceSynchronize()); };
  const Family family = layer.family;

  // Forward.
  DeviceArray<uint16_t> hidden(size_t(R) * G), activated(size_t(R) * F), rows(size_t(R) * D);
  expert_up(
      family, shape, layer.plan,
      {x.get(), x_stride, true, layer.gate_up, layer.gate_up_bias, activation, hidden.get(), activated.get()},
      nullptr);
  synchronize();
  rows_close(hidden,
             reference(x.get(), x_stride, D, K, {gate_up.get(), up_stride, 1, D}, layer.gate_up_bias, G), G,
             1 / 256.f, 1e-3f, "hidden");
  const std::vector<float> h = floats(hidden.host());
  std::vector<float> a(size_t(num_rows) * F), da_dg(a.size()), da_du(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    const size_t gate = i / F * G + i % F;
    const ActivationGradient both =
        reference_activation(activation, h[gate], activation.gated() ? h[gate + F] : 0);
    a[i] = both.value, da_dg[i] = both.dg, da_du[i] = both.du;
  }
  rows_close(activated, a, F, 1 / 256.f, 1e-4f, "activated");
  // Of a copy of x in the plan's order: the same bits.
  DeviceArray<uint16_t> x_rows(size_t(R) * D), hidden_again(size_t(R) * G), activated_again(size_t(R) * F);
  copy_to_rows(shape, token_rows.get(), x.get(), x_stride, x_rows.get(), nullptr);
  expert_up(family, shape, layer.plan,
            {x_rows.get(), D, false, layer.gate_up, layer.gate_up_bias, activation, hidden_again.get(),
             activated_again.get()},
            nullptr);
  synchronize();
  report.check(same_bits(hidden, hidden_again) && same_bits(activated, activated_again), "up of rows");
  expert_matmul(family, shape, layer.plan,
                {activated.get(), F, false, layer.down, true, layer.down_bias, F, D, rows.get()}, nullptr);
  synchronize();
  rows_close(rows, reference(activated.get(), F, F, 0, {down.get(), down_stride, 1, F}, layer.down_bias, D),
             D, 1 / 256.f, 1e-3f, "rows");

  // Backward.
  DeviceArray<uint16_t> dhidden(size_t(R) * G), weighted(size_t(R) * F), dx_rows(size_t(R) * D);
  const int parts = num_gate_parts(F);
  DeviceArray<float> gate_parts(size_t(R) * parts);
  expert_dhidden(family, shape, layer.plan,
                 {dy.get(), x_stride, true, layer.down, activation, hidden.get(), gate_weights.get(),
                  dhidden.get(), weighted.get(), gate_parts.get()},
                 nullptr);
  synchronize();
  const std::vector<float> da = reference(dy.get(), x_stride, D, K, {down.get(), down_stride, F, 1}, {}, F);
  const std::vector<float> weights = gate_weights.host(), part = gate_parts.host();
  std::vector<float> expected_dhidden(size_t(num_rows) * G), expected_weighted(a.size());
  std::vector<float> expected_gate(R), got_gate(R);
  for (int r = 0; r < num_rows; ++r) {
    if (row_place[r] < 0) continue;
    const float weight = weights[assignment[r]];
    double sum = 0;
    for (int n = 0; n < F; ++n) {
      const size_t i = size_t(r) * F + n;
      expected_weighted[i] = weight * a[i];
      expected_dhidden[size_t(r) * G + n] = weight * da[i] * da_dg[i];
      if (activation.gated()) expected_dhidden[size_t(r) * G + F + n] = weight * da[i] * da_du[i];
      sum += double(da[i]) * a[i];
    }
    expected_gate[r] = static_cast<float>(sum);
    for (int i = 0; i < parts; ++i) got_gate[r] += part[size_t(i) * R + r];
  }
  // Of a copy of dy in the plan's order: the same bits.
  DeviceArray<uint16_t> dy_rows(size_t(R) * D), dhidden_again(size_t(R) * G), weighted_again(size_t(R) * F);
  copy_to_rows(shape, token_rows.get(), dy.get(), x_stride, dy_rows.get(), nullptr);
  expert_dhidden(family, shape, layer.plan,
                 {dy_rows.get(), D, false, layer.down, activation, hidden.get(), gate_weights.get(),
                  dhidden_again.get(), weighted_again.get(), gate_parts.get()},
                 nullptr);
  synchronize();
  report.check(same_bits(dhidden, dhidden_again) && same_bits(weighted, weighted_again) &&
                   same_bits(gate_parts, DeviceArray<float>(part)),
               "dhidden of rows");
  rows_close(dhidden, expected_dhidden, G, 1 / 100.f, 2e-3f, "dhidden");
  rows_close(weighted, expected_weighted, F, 1 / 256.f, 1e-4f, "weighted");
  report.check(close(got_gate, expected_gate, 0, 0.02f, "gate parts"), "gate parts");
  expert_matmul(family, shape, layer.plan,
                {dhidden.get(), G, false, layer.gate_up, false, {}, G, D, dx_rows.get()}, nullptr);
  synchronize();
  rows_close(dx_rows, reference(dhidden.get(), G, G, 0, {gate_up.get(), up_stride, D, 1}, {}, D), D,
             1 / 256.f, 1e-3f, "dx rows");
  DeviceArray<char> weight_scratch(expert_layer_backward_weight_workspace_bytes(layer));
  ExpertLayerBackwardWeight backward{dy.get(),           x_stride,      x.get(),       x_stride,
                                     gate_weights.get(), dhidden.get(), weighted.get()};
  outer_close({dy.get(), x_stride, true, D}, weighted.get(), F, false, "ddown", [&](Gradient gradient) {
    backward.down = gradient, backward.gate_up = {};
    expert_layer_backward_weight(layer, backward, weight_scratch.get(), nullptr);
  });
  outer_close({x.get(), x_stride, true, D}, dhidden.get(), G, true, "dgate_up", [&](Gradient gradient) {
    backward.gate_up = gradient, backward.down = {};
    expert_layer_backward_weight(layer, backward, weight_scratch.get(), nullptr);
  });
  if (c.bias && num_rows) {
    bias_close(true, dhidden);
    bias_close(false, dhidden);
  }

  // Plain products by token, either way round, and an outer product of rows with rows.
  DeviceArray<uint16_t> plain(size_t(R) * F), plain_transposed(size_t(R) * F);
  const PlacedBias bias{layer.gate_up_bias};
  expert_matmul(family, shape, layer.plan,
                {x.get(), x_stride, true, layer.down, false, bias, D, F, plain.get()}, nullptr);
  expert_matmul(family, shape, layer.plan,
                {x.get(), x_stride, true, layer.gate_up, true, bias, D, F, plain_transposed.get()}, nullptr);
  synchronize();
  rows_close(plain, reference(x.get(), x_stride, D, K, {down.get(), down_stride, F, 1}, bias, F), F,
             1 / 256.f, 1e-3f, "x W by token");
  rows_close(plain_transposed, reference(x.get(), x_stride, D, K, {gate_up.get(), up_stride, 1, D}, bias, F),
             F, 1 / 256.f, 1e-3f, "x W^T by token");
  if (!c.scattered_places)
    outer_close({rows.get(), D, false, D}, weighted.get(), F, false, "rows by rows", [&](Gradient gradient) {
      expert_outer(family, shape, layer.plan, {weighted.get(), F, rows.get(), D, false, D, true, gradient},
                   nullptr);
    });
  check_whole(hidden, rows, dhidden, weighted, dx_rows, got_gate);
}

// The layer in one go: the same bits as its products, and the sums per token.
void Run::check_whole(const DeviceArray<uint16_t>& hidden, const DeviceArray<uint16_t>& rows,
                      const DeviceArray<uint16_t>& dhidden, const DeviceArray<uint16_t>& weighted,
                      const DeviceArray<uint16_t>& dx_rows, const std::vector<float>& gate_gradients) {
  DeviceArray<uint16_t> y(size_t(T) * D), kept(size_t(R) * G), dx(size_t(T) * D),
      dhidden_again(size_t(R) * G), weighted_again(size_t(R) * F);
  DeviceArray<float> y_fp32(size_t(T) * D), dgate_weights(R);
  DeviceArray<char> scratch(expert_layer_forward_workspace_bytes(shape)),
      backward_scratch(expert_layer_backward_input_workspace_bytes(shape));
  ExpertLayerForward forward{x.get(), x_stride, gate_weights.get(), kept.get(), y.get()};
  expert_layer_forward(layer, forward, scratch.get(), nullptr);
  forward.hidden = nullptr, forward.y = y_fp32.get(), forward.y_fp32 = true, forward.many_tokens = true;
  expert_layer_forward(layer, forward, scratch.get(), nullptr);
  outer_close({dy.get(), x_stride, true, D}, weighted.get(), F, false, "ddown at once", [&](Gradient down) {
    expert_layer_backward_input(layer,
                                {dy.get(), x_stride, gate_weights.get(), kept.get(), dx.get(), false,
                                 dgate_weights.get(), dhidden_again.get(), weighted_again.get(), down},
                                backward_scratch.get(), nullptr);
  });
  const std::vector<int> at = token_rows.host();
  const std::vector<float> all_rows = floats(rows.host()), all_dx = floats(dx_rows.host()),
                           all_dy = floats(dy.host()), bias = floats(down_bias.host()),
                           weights = gate_weights.host();
  std::vector<float> expected_y(y.size()), expected_dx(dx.size()), expected_dgate(R);
  for (int t = 0; t < T; ++t)
    for (int k = 0; k < K; ++k) {
      const int a = t * K + k, row = at[a];
      if (row < 0 || row_place[row] < 0) continue;
      expected_dgate[a] = gate_gradients[row];
      for (int n = 0; n < D; ++n) {
        expected_y[size_t(t) * D + n] += weights[a] * all_rows[size_t(row) * D + n];
        expected_dx[size_t(t) * D + n] += all_dx[size_t(row) * D + n];
        if (c.bias) expected_dgate[a] += all_dy[t * x_stride + n] * bias[size_t(row_place[row]) * D + n];
      }
    }
  report.check(close(floats(y.host()), expected_y, 1 / 256.f, 1e-5f, "y"), "y");
  report.check(close(y_fp32.host(), expected_y, 1e-5f, 1e-5f, "y in fp32"), "y in fp32");
  report.check(close(floats(dx.host()), expected_dx, 1 / 256.f, 1e-5f, "dx"), "dx");
  report.check(close(dgate_weights.host(), expected_dgate, 1e-4f, 1e-4f, "dgate_weights"), "dgate_weights");
  report.check(y.guard_intact() && y_fp32.guard_intact() && dx.guard_intact() &&
                   dgate_weights.guard_intact() && scratch.guard_intact() && backward_scratch.guard_intact(),
               "guards of the layer");
  report.check(
      same_bits(kept, hidden) && same_bits(dhidden_again, dhidden) && same_bits(weighted_again, weighted),
      "the same bits twice");
}

}  // namespace

void test_expert_layer(Report& report, Family family, DataType type, int most_cases) {
  using R = Routing;
  using A = ActivationKind;
  const Case cases[] = {
      {"one tile", 128, 64, 128, 1, 1},
      {"small", 96, 128, 64, 4, 2},
      {"D and F divisible by 8 only", 150, 72, 40, 5, 3},
      {"smallest", 9, 8, 8, 3, 2},
      {"one token", 1, 256, 136, 8, 4},
      {"drops", 300, 136, 200, 6, 4, R::kDrops},
      {"places", 500, 192, 144, 9, 2, R::kUniform, A::kSwiGlu, true, true},
      {"geglu", 200, 128, 264, 4, 2, R::kUniform, A::kGeGlu},
      {"clamped, biases", 200, 128, 264, 4, 2, R::kUniform, A::kClampedSwiGlu, false, true},
      {"gelu, biases", 200, 136, 328, 4, 2, R::kUniform, A::kGelu, false, true},
      {"relu", 200, 128, 128, 4, 2, R::kHalfEmpty, A::kRelu},
      {"silu, places", 200, 128, 272, 8, 2, R::kDrops, A::kSilu, true},
      {"no tokens", 0, 64, 64, 4, 2},
      {"many tiles", 4096, 256, 1032, 8, 2},
      {"long K", 1000, 1536, 520, 4, 2, R::kUniform, A::kSwiGlu, false, true},
      {"copied rows, drops, places", 700, 136, 648, 6, 3, R::kDrops, A::kSwiGlu, true},
      {"copied for up, drops, places", 700, 136, 1032, 6, 3, R::kDrops, A::kSwiGlu, true, true},
      {"half empty", 2048, 512, 256, 16, 4, R::kHalfEmpty},
      {"one expert has all", 2048, 264, 384, 16, 2, R::kOne},
      {"zipf", 4096, 256, 200, 32, 4, R::kZipf},
      {"1024 experts", 512, 128, 64, 1024, 8},
  };
  int index = 0;
  for (const Case& c : cases) {
    if (index++ >= most_cases) break;
    const std::string name =
        std::string(family_name(family)) + (type == DataType::kFp16 ? " fp16: " : " bf16: ") + c.name;
    report.name = name;
    Run(c, family, type, report).run();
    std::printf("%s: %d passed, %d failed so far\n", name.c_str(), report.passed, report.failed);
  }
}

}  // namespace motley::cuda::test
