// Every product of the expert layer, each against a plain kernel over the very inputs it had, element by
// element; then the layer as a whole, which must give the same bits.
#include <cmath>
#include <random>
#include <string>

#include "motley/kernels/cuda/expert_layer.h"
#include "motley/kernels/cuda/token_sum.h"
#include "tests/kernels_cuda/reference.cuh"
#include "tests/kernels_cuda/tests.h"

namespace motley::cuda::test {
namespace {

enum class Routing { kUniform, kDrops, kHalfEmpty, kOne, kZipf };

struct Case {
  const char* name;
  int tokens, width, expert_width, experts, top_k;
  Routing routing = Routing::kUniform;
  GatedKind activation = GatedKind::kSwiGlu;
  bool scattered_places = false;
};

std::mt19937 generator(7);

std::vector<bf16> random_bf16(size_t count, float scale) {
  std::normal_distribution<float> normal(0.f, scale);
  std::vector<bf16> values(count);
  for (bf16& value : values) value = __float2bfloat16(normal(generator));
  return values;
}

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

// In double, the derivatives by central differences.
GatedGradient reference_activation(const GatedActivation& activation, double g, double u) {
  const double limit = activation.limit, alpha = activation.alpha, step = 1e-6;
  const auto value = [&](double x, double y) -> double {
    switch (activation.kind) {
      case GatedKind::kSwiGlu:
        return x / (1 + std::exp(-x)) * y;
      case GatedKind::kGeGlu:
        return x * 0.5 * std::erfc(-x / std::sqrt(2.0)) * y;
      case GatedKind::kClampedSwiGlu:
        x = std::fmin(x, limit), y = std::fmin(std::fmax(y, -limit), limit);
        return x / (1 + std::exp(-alpha * x)) * (y + 1);
    }
    return NAN;
  };
  // At the clamps' edges the derivative from inside holds.
  const double at_g = g == limit ? g - 2 * step : g, at_u = std::abs(u) == limit ? u * (1 - 2 * step) : u;
  return {static_cast<float>(value(g, u)),
          static_cast<float>((value(at_g + step, u) - value(at_g - step, u)) / (2 * step)),
          static_cast<float>((value(g, at_u + step) - value(g, at_u - step)) / (2 * step))};
}

// |got - expected| within `relative` of the element and `absolute` of the root mean square.
bool close(const std::vector<bf16>& got, const std::vector<float>& expected, float relative, float absolute,
           const char* what) {
  double squares = 0;
  for (float value : expected) squares += double(value) * value;
  const float floor = absolute * std::sqrt(squares / std::max<size_t>(1, expected.size()));
  size_t bad = 0, first = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const float value = __bfloat162float(got[i]);
    if (!(std::abs(value - expected[i]) <= relative * std::abs(expected[i]) + floor) && bad++ == 0) first = i;
  }
  if (bad)
    std::printf("  %s: %zu of %zu differ, first at %zu: got %g, expected %g\n", what, bad, expected.size(),
                first, __bfloat162float(got[first]), expected[first]);
  return bad == 0;
}

bool is_poison(const bf16& value) {
  uint16_t bits;
  std::memcpy(&bits, &value, 2);
  return bits == 0xffff;
}

// Rows past the last one, and those of absent experts, were left alone.
bool untouched(const std::vector<bf16>& rows, int width, const std::vector<int>& row_place) {
  for (size_t i = 0; i < rows.size(); ++i)
    if (i / width >= row_place.size() || row_place[i / width] < 0)
      if (!is_poison(rows[i])) return false;
  return true;
}

struct Run {
  const Case& c;
  Report& report;
  int num_rows = 0;
  ExpertShape shape;
  std::vector<int> slots, offset, row_place, places;

  Run(const Case& one, Report& to) : c(one), report(to), slots(make_slots(one)) {
    shape = {c.tokens, c.top_k, c.experts, c.experts, c.width, c.expert_width, c.tokens * c.top_k};
    places.resize(c.experts);
    for (int e = 0; e < c.experts; ++e)
      places[e] = !c.scattered_places ? e : e % 4 == 2 ? -1 : c.experts - 1 - e;
  }

  // Checks a by-row result where its expert is present.
  void rows_close(const DeviceArray<bf16>& got, const std::vector<float>& expected, int width, float relative,
                  float absolute, const char* what) {
    std::vector<bf16> rows = got.host(), present;
    std::vector<float> wanted;
    for (int r = 0; r < num_rows; ++r)
      if (row_place[r] >= 0)
        for (int n = 0; n < width; ++n) {
          present.push_back(rows[size_t(r) * width + n]);
          wanted.push_back(expected[size_t(r) * width + n]);
        }
    report.check(close(present, wanted, relative, absolute, what), what);
    report.check(untouched(rows, width, row_place), (std::string(what) + " outside its rows").c_str());
    report.check(got.guard_intact(), (std::string(what) + " guard").c_str());
  }

  void run();
};

constexpr int kBlock = 256;
int blocks(size_t count) { return static_cast<int>((count + kBlock - 1) / kBlock); }

void Run::run() {
  const int D = c.width, F = c.expert_width, E = c.experts, K = c.top_k, T = c.tokens, R = shape.max_rows;
  const GatedActivation activation{c.activation, 1.5f, 1.0f};
  // Expert e's weights lie apart by more than their size.
  const long gap = c.scattered_places ? 64 : 0, up_stride = 2l * F * D + gap, down_stride = long(D) * F + gap;
  DeviceArray<bf16> x(random_bf16(size_t(T) * D, 1)), dy(random_bf16(size_t(T) * D, 1));
  DeviceArray<bf16> gate_up(random_bf16(E * up_stride, 1 / std::sqrt(D))),
      down(random_bf16(E * down_stride, 1 / std::sqrt(F)));
  std::vector<float> weights(size_t(T) * K);
  for (float& weight : weights) weight = 0.1f + generator() % 1000 * 1e-3f;
  DeviceArray<float> gate_weights(weights);

  DeviceArray<int> device_slots(slots), row_assignment(R), expert_offset(E + 1), token_rows(R), num_tiles(1),
      device_places(places);
  DeviceArray<RowTile> tiles(max_row_tiles(R, E));
  DeviceArray<char> plan_workspace(routing_plan_workspace_bytes(R, E));
  const TileSchedule schedule{tiles.get(), num_tiles.get()};
  routing_plan(device_slots.get(), R, E, {row_assignment.get(), expert_offset.get(), token_rows.get()},
               schedule, plan_workspace.get(), nullptr);
  if (c.scattered_places) tile_schedule(expert_offset.get(), E, device_places.get(), schedule, nullptr);
  const ExpertPlan plan{row_assignment.get(), expert_offset.get(),
                        c.scattered_places ? device_places.get() : nullptr, schedule};

  offset = expert_offset.host();
  num_rows = offset[E];
  row_place.resize(num_rows);
  for (int e = 0; e < E; ++e)
    for (int r = offset[e]; r < offset[e + 1]; ++r) row_place[r] = places[e];
  const std::vector<int> assignment = row_assignment.host();
  DeviceArray<int> device_row_place(row_place);
  const auto reference = [&](const bf16* a, int depth, int top_k, Strided w, int width) {
    DeviceArray<float> out(size_t(num_rows) * width);
    if (num_rows)
      reference_rows<<<blocks(out.size()), kBlock>>>(a, depth, row_assignment.get(), top_k,
                                                     device_row_place.get(), w, width, num_rows, out.get());
    return out.host();
  };

  // Forward.
  DeviceArray<bf16> hidden(size_t(R) * 2 * F), activated(size_t(R) * F), rows(size_t(R) * D);
  sm90::expert_up(shape, plan, activation, x.get(), D, {gate_up.get(), up_stride}, hidden.get(),
                  activated.get(), nullptr);
  MOTLEY_CUDA_CHECK(cudaDeviceSynchronize());
  rows_close(hidden, reference(x.get(), D, K, {gate_up.get(), up_stride, 1, D}, 2 * F), 2 * F, 1 / 256.f,
             1e-3f, "hidden");
  const std::vector<bf16> h = hidden.host();
  std::vector<float> a(size_t(num_rows) * F), da_dg(a.size()), da_du(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    const size_t gate = i / F * 2 * F + i % F;
    const GatedGradient both =
        reference_activation(activation, __bfloat162float(h[gate]), __bfloat162float(h[gate + F]));
    a[i] = both.value, da_dg[i] = both.dg, da_du[i] = both.du;
  }
  rows_close(activated, a, F, 1 / 256.f, 1e-4f, "activated");
  sm90::expert_down(shape, plan, activated.get(), {down.get(), down_stride}, rows.get(), nullptr);
  MOTLEY_CUDA_CHECK(cudaDeviceSynchronize());
  rows_close(rows, reference(activated.get(), F, 0, {down.get(), down_stride, 1, F}, D), D, 1 / 256.f, 1e-3f,
             "rows");

  // Backward.
  DeviceArray<bf16> dhidden(size_t(R) * 2 * F), weighted(size_t(R) * F), dx_rows(size_t(R) * D);
  const int parts = sm90::num_gate_parts(shape);
  DeviceArray<float> gate_parts(size_t(R) * parts);
  sm90::expert_dhidden(shape, plan, activation, dy.get(), D, {down.get(), down_stride}, hidden.get(),
                       gate_weights.get(), dhidden.get(), weighted.get(), gate_parts.get(), nullptr);
  MOTLEY_CUDA_CHECK(cudaDeviceSynchronize());
  const std::vector<float> da = reference(dy.get(), D, K, {down.get(), down_stride, F, 1}, F);
  std::vector<float> expected_dhidden(size_t(num_rows) * 2 * F), expected_weighted(a.size());
  std::vector<float> expected_gate(R), got_gate(R);
  const std::vector<float> part = gate_parts.host();
  for (int r = 0; r < num_rows; ++r) {
    if (row_place[r] < 0) continue;
    const float weight = weights[assignment[r]];
    double sum = 0;
    for (int n = 0; n < F; ++n) {
      const size_t i = size_t(r) * F + n;
      expected_weighted[i] = weight * a[i];
      expected_dhidden[size_t(r) * 2 * F + n] = weight * da[i] * da_dg[i];
      expected_dhidden[size_t(r) * 2 * F + F + n] = weight * da[i] * da_du[i];
      sum += double(da[i]) * a[i];
    }
    expected_gate[r] = static_cast<float>(sum);
    for (int i = 0; i < parts; ++i) got_gate[r] += part[size_t(i) * R + r];
  }
  rows_close(dhidden, expected_dhidden, 2 * F, 1 / 100.f, 2e-3f, "dhidden");
  rows_close(weighted, expected_weighted, F, 1 / 256.f, 1e-4f, "weighted");
  double squares = 1e-30, worst = 0;
  for (int r = 0; r < num_rows; ++r) squares += double(expected_gate[r]) * expected_gate[r] / num_rows;
  for (int r = 0; r < num_rows; ++r) worst = std::fmax(worst, std::abs(got_gate[r] - expected_gate[r]));
  if (!report.check(worst <= 0.02 * std::sqrt(squares), "gate parts"))
    std::printf("  gate parts: off by %g, root mean square %g\n", worst, std::sqrt(squares));
  sm90::expert_dx(shape, plan, dhidden.get(), {gate_up.get(), up_stride}, dx_rows.get(), nullptr);
  MOTLEY_CUDA_CHECK(cudaDeviceSynchronize());
  rows_close(dx_rows, reference(dhidden.get(), 2 * F, 0, {gate_up.get(), up_stride, D, 1}, D), D, 1 / 256.f,
             1e-3f, "dx rows");

  DeviceArray<bf16> ddown(E * down_stride), dgate_up(E * up_stride);
  sm90::expert_ddown(shape, plan, dy.get(), D, weighted.get(), ddown.get(), down_stride, nullptr);
  sm90::expert_dgate_up(shape, plan, x.get(), D, dhidden.get(), dgate_up.get(), up_stride, nullptr);
  MOTLEY_CUDA_CHECK(cudaDeviceSynchronize());
  const auto check_outer = [&](const DeviceArray<bf16>& got, long stride, const bf16* by_token,
                               const bf16* by_row, int width, bool transposed, const char* what) {
    DeviceArray<float> out(size_t(E) * D * width);
    reference_outer<<<blocks(out.size()), kBlock>>>(by_token, D, row_assignment.get(), std::max(K, 1),
                                                    expert_offset.get(), by_row, width, E, out.get());
    const std::vector<float> expected = out.host();
    const std::vector<bf16> all = got.host();
    std::vector<bf16> present;
    std::vector<float> wanted;
    bool gaps = true;
    for (int e = 0; e < E; ++e) {
      if (places[e] < 0) continue;
      for (int m = 0; m < D; ++m)
        for (int n = 0; n < width; ++n) {
          present.push_back(all[places[e] * stride + (transposed ? long(n) * D + m : long(m) * width + n)]);
          wanted.push_back(expected[(size_t(e) * D + m) * width + n]);
        }
      for (long i = long(D) * width; i < stride; ++i) gaps &= is_poison(all[places[e] * stride + i]);
    }
    report.check(close(present, wanted, 1 / 256.f, 1e-3f, what), what);
    report.check(gaps && got.guard_intact(), (std::string(what) + " between experts").c_str());
  };
  check_outer(ddown, down_stride, dy.get(), weighted.get(), F, false, "ddown");
  check_outer(dgate_up, up_stride, x.get(), dhidden.get(), 2 * F, true, "dgate_up");
  if (c.scattered_places) return;

  // The layer as a whole, and the sums per token.
  DeviceArray<bf16> y(size_t(T) * D), dx(size_t(T) * D), kept(size_t(R) * 2 * F), ddown_again(ddown.size()),
      dgate_up_again(dgate_up.size());
  DeviceArray<float> dgate_weights(R);
  DeviceArray<char> forward_scratch(expert_layer_forward_workspace_bytes(shape)),
      backward_scratch(expert_layer_backward_workspace_bytes(shape));
  expert_layer_forward(shape, plan, token_rows.get(),
                       {x.get(),
                        gate_weights.get(),
                        {gate_up.get(), up_stride},
                        {down.get(), down_stride},
                        activation,
                        kept.get(),
                        y.get()},
                       forward_scratch.get(), nullptr);
  expert_layer_backward(shape, plan, token_rows.get(),
                        {x.get(),
                         dy.get(),
                         gate_weights.get(),
                         {gate_up.get(), up_stride},
                         {down.get(), down_stride},
                         activation,
                         kept.get(),
                         dx.get(),
                         dgate_weights.get(),
                         dgate_up_again.get(),
                         ddown_again.get(),
                         up_stride,
                         down_stride},
                        backward_scratch.get(), nullptr);
  MOTLEY_CUDA_CHECK(cudaDeviceSynchronize());
  const std::vector<int> at = token_rows.host();
  const std::vector<bf16> all_rows = rows.host(), all_dx = dx_rows.host();
  std::vector<float> expected_y(y.size()), expected_dx(dx.size()), expected_dgate(R);
  for (int t = 0; t < T; ++t)
    for (int k = 0; k < K; ++k) {
      const int row = at[t * K + k];
      if (row < 0) continue;
      expected_dgate[t * K + k] = got_gate[row];
      for (int n = 0; n < D; ++n) {
        expected_y[size_t(t) * D + n] += weights[t * K + k] * __bfloat162float(all_rows[size_t(row) * D + n]);
        expected_dx[size_t(t) * D + n] += __bfloat162float(all_dx[size_t(row) * D + n]);
      }
    }
  report.check(close(y.host(), expected_y, 1 / 256.f, 1e-5f, "y"), "y");
  report.check(close(dx.host(), expected_dx, 1 / 256.f, 1e-5f, "dx"), "dx");
  report.check(dgate_weights.host() == expected_dgate, "dgate_weights");
  report.check(y.guard_intact() && dx.guard_intact() && dgate_weights.guard_intact() &&
                   forward_scratch.guard_intact() && backward_scratch.guard_intact(),
               "guards of the layer");
  const auto same_bits = [](const std::vector<bf16>& one, const std::vector<bf16>& two) {
    return one.empty() || std::memcmp(one.data(), two.data(), one.size() * sizeof(bf16)) == 0;
  };
  report.check(same_bits(kept.host(), h) && same_bits(ddown_again.host(), ddown.host()) &&
                   same_bits(dgate_up_again.host(), dgate_up.host()),
               "the same bits twice");
}

}  // namespace

void test_expert_layer(Report& report, bool small) {
  using R = Routing;
  using A = GatedKind;
  const Case cases[] = {
      {"one tile", 128, 64, 128, 1, 1},
      {"small", 96, 128, 64, 4, 2},
      {"D and F divisible by 8 only", 150, 72, 40, 5, 3},
      {"smallest", 9, 8, 8, 3, 2},
      {"one token", 1, 256, 136, 8, 4},
      {"drops", 300, 136, 200, 6, 4, R::kDrops},
      {"places", 500, 192, 144, 9, 2, R::kUniform, A::kSwiGlu, true},
      {"geglu", 200, 128, 264, 4, 2, R::kUniform, A::kGeGlu},
      {"clamped", 200, 128, 264, 4, 2, R::kUniform, A::kClampedSwiGlu},
      {"no tokens", 0, 64, 64, 4, 2},
      {"many tiles", 4096, 256, 1032, 8, 2},
      {"long K", 1000, 1536, 520, 4, 2},
      {"half empty", 2048, 512, 256, 16, 4, R::kHalfEmpty},
      {"one expert has all", 2048, 264, 384, 16, 2, R::kOne},
      {"zipf", 4096, 256, 200, 32, 4, R::kZipf},
      {"1024 experts", 512, 128, 64, 1024, 8},
  };
  int index = 0;
  for (const Case& c : cases) {
    if (small && index++ >= 10) break;
    report.name = c.name;
    Run(c, report).run();
    std::printf("%s: %d passed, %d failed so far\n", c.name, report.passed, report.failed);
  }
}

}  // namespace motley::cuda::test
