#include "benchmarks/operators/ceilings.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <chrono>

#include "motley/kernels/cpu/families.h"

namespace motley::bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

constexpr int64_t kRounds = 2'000'000;
constexpr int64_t kTileRounds = 1'000'000;
constexpr int kSums = 24;

__attribute__((target("avx512f"))) double fma_run(float* out) {
  __m512 sum[kSums];
  for (int i = 0; i < kSums; ++i) sum[i] = _mm512_set1_ps(1.0f + i);
  const __m512 a = _mm512_set1_ps(0.99f), b = _mm512_set1_ps(0.01f);
  const auto start = Clock::now();
  for (int64_t n = 0; n < kRounds; ++n) {
#pragma GCC unroll 24
    for (int i = 0; i < kSums; ++i) sum[i] = _mm512_fmadd_ps(sum[i], a, b);
  }
  const double seconds = seconds_since(start);
  for (int i = 0; i < kSums; ++i) out[i] = _mm512_cvtss_f32(sum[i]);
  return 2.0 * 16 * kSums * kRounds / seconds;
}

__attribute__((target("avx512f,avx512bf16"))) double pair_run(float* out) {
  __m512 sum[kSums];
  for (int i = 0; i < kSums; ++i) sum[i] = _mm512_set1_ps(1.0f + i);
  const __m512bh a = (__m512bh)_mm512_set1_epi32(0x3c003c01), b = (__m512bh)_mm512_set1_epi32(0x3c013c00);
  const auto start = Clock::now();
  for (int64_t n = 0; n < kRounds; ++n) {
#pragma GCC unroll 24
    for (int i = 0; i < kSums; ++i) sum[i] = _mm512_dpbf16_ps(sum[i], a, b);
  }
  const double seconds = seconds_since(start);
  for (int i = 0; i < kSums; ++i) out[i] = _mm512_cvtss_f32(sum[i]);
  return 2.0 * 32 * kSums * kRounds / seconds;
}

// Four registers of sums, as many as leave room for operands; the intrinsics would ask for flags of their
// own.
double tile_run() {
  struct alignas(64) {
    uint8_t palette = 1, rest[15] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } configuration;
  asm volatile("ldtilecfg %0" ::"m"(configuration) : "memory");
  const auto start = Clock::now();
  for (int64_t n = 0; n < kTileRounds; ++n) {
    asm volatile(
        "tdpbf16ps %tmm6, %tmm4, %tmm0\n\ttdpbf16ps %tmm7, %tmm4, %tmm1\n\t"
        "tdpbf16ps %tmm6, %tmm5, %tmm2\n\ttdpbf16ps %tmm7, %tmm5, %tmm3");
  }
  const double seconds = seconds_since(start);
  asm volatile("tilerelease" ::: "memory");
  return 4 * 2.0 * 16 * 16 * 32 * kTileRounds / seconds;
}

__attribute__((target("avx512f"))) int64_t read_run(const void* memory, int64_t bytes) {
  const auto* p = static_cast<const __m512i*>(memory);
  __m512i sum[8] = {};
  // Eight streams, as a matrix-vector product reads eight rows.
  const int64_t stride = bytes / 64 / 8;
  for (int64_t i = 0; i < stride; ++i) {
#pragma GCC unroll 8
    for (int s = 0; s < 8; ++s) sum[s] = _mm512_xor_si512(sum[s], _mm512_loadu_si512(p + s * stride + i));
  }
  for (int s = 1; s < 8; ++s) sum[0] = _mm512_xor_si512(sum[0], sum[s]);
  int64_t parts[8];
  _mm512_storeu_si512(parts, sum[0]);
  return parts[0] ^ parts[1] ^ parts[2] ^ parts[3] ^ parts[4] ^ parts[5] ^ parts[6] ^ parts[7];
}

volatile int64_t sink;

}  // namespace

double fma_peak() {
  if (!__builtin_cpu_supports("avx512f")) return 0;
  float out[kSums];
  double best = 0;
  for (int i = 0; i < 5; ++i) best = std::max(best, fma_run(out));
  sink = static_cast<int64_t>(out[3]);
  return best;
}

double bf16_pair_peak() {
  if (!__builtin_cpu_supports("avx512bf16")) return 0;
  float out[kSums];
  double best = 0;
  for (int i = 0; i < 5; ++i) best = std::max(best, pair_run(out));
  sink = static_cast<int64_t>(out[3]);
  return best;
}

double tile_peak() {
  if (!kernels::cpu_families().back().available || kernels::cpu_families().back().name != "amx") return 0;
  double best = 0;
  for (int i = 0; i < 5; ++i) best = std::max(best, tile_run());
  return best;
}

double read_bandwidth(const void* memory, int64_t bytes) {
  if (!__builtin_cpu_supports("avx512f")) return 0;
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    const auto start = Clock::now();
    sink = read_run(memory, bytes);
    best = std::max(best, bytes / seconds_since(start));
  }
  return best;
}

}  // namespace motley::bench

#else

// Without a loop of this processor's own instructions there is no ceiling to name.
namespace motley::bench {

double fma_peak() { return 0; }
double bf16_pair_peak() { return 0; }
double tile_peak() { return 0; }
double read_bandwidth(const void*, int64_t) { return 0; }

}  // namespace motley::bench

#endif
