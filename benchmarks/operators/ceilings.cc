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

using Line = __m512i;

__attribute__((target("avx512f"))) int64_t folded(const Line* sum, int count) {
  Line all = sum[0];
  for (int s = 1; s < count; ++s) all = _mm512_xor_si512(all, sum[s]);
  int64_t parts[8];
  _mm512_storeu_si512(parts, all);
  return parts[0] ^ parts[1] ^ parts[2] ^ parts[3] ^ parts[4] ^ parts[5] ^ parts[6] ^ parts[7];
}

constexpr int64_t kPageLines = 64;  // of 4 KiB

// One line after the other, a page ahead: the fastest on huge pages.
__attribute__((target("avx512f"))) int64_t read_in_order(const Line* p, int64_t lines) {
  Line sum[8] = {};
  for (int64_t i = 0; i + 8 <= lines; i += 8) {
#pragma GCC unroll 8
    for (int s = 0; s < 8; ++s) {
      _mm_prefetch(reinterpret_cast<const char*>(p + i + s + kPageLines), _MM_HINT_T1);
      sum[s] = _mm512_xor_si512(sum[s], _mm512_loadu_si512(p + i + s));
    }
  }
  return folded(sum, 8);
}

// Twelve pages side by side while the next twelve are fetched: the fastest on pages of 4 KiB.
__attribute__((target("avx512f"))) int64_t read_pages(const Line* p, int64_t lines) {
  constexpr int kPages = 12;
  Line sum[kPages] = {};
  for (int64_t block = 0; block + kPages * kPageLines <= lines; block += kPages * kPageLines) {
    for (int64_t i = block; i < block + kPageLines; ++i) {
#pragma GCC unroll 12
      for (int s = 0; s < kPages; ++s) {
        _mm_prefetch(reinterpret_cast<const char*>(p + i + (s + kPages) * kPageLines), _MM_HINT_T1);
        sum[s] = _mm512_xor_si512(sum[s], _mm512_loadu_si512(p + i + s * kPageLines));
      }
    }
  }
  return folded(sum, kPages);
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

bool read_once(const void* memory, int64_t bytes, ReadOrder order) {
  if (!__builtin_cpu_supports("avx512f")) return false;
  const auto* lines = static_cast<const Line*>(memory);
  sink = order == ReadOrder::kLines ? read_in_order(lines, bytes / 64) : read_pages(lines, bytes / 64);
  return true;
}

}  // namespace motley::bench

#else

// Without a loop of this processor's own instructions there is no ceiling to name.
namespace motley::bench {

double fma_peak() { return 0; }
double bf16_pair_peak() { return 0; }
double tile_peak() { return 0; }
bool read_once(const void*, int64_t, ReadOrder) { return false; }

}  // namespace motley::bench

#endif
