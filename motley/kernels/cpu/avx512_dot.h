// Matrix-vector products on 512-bit vectors: a few rows of x against a weight that streams past. See simd.h
// for the anonymous namespace.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <iterator>

#include "motley/kernels/cpu/avx512_products.h"

namespace motley::kernels {
namespace {

// How memory is read fastest: one row of w after the other (Zen 4), or many at once (Sapphire Rapids, by a
// fifth).
enum class RowOrder { kInOrder, kSideBySide };

// T rows of x against N rows of w; vectors run along the depth.
template <class Multiply, RowOrder kOrder>
struct Avx512Dot {
  using Element = typename Multiply::Element;
  static constexpr int64_t kLength = 16 * Multiply::kStep;

  // N rows of w, `step` elements apart, and as many lines to fetch meanwhile.
  struct WeightRows {
    const Element* rows;
    const Element* next;
    int64_t step;
  };

  template <int T, int N>
  static inline __attribute__((always_inline)) void add_up(Rows x, const WeightRows& w, int64_t depth,
                                                           __m512 (&sum)[T][N]) {
    const Element* row[T];
    for (int t = 0; t < T; ++t) row[t] = static_cast<const Element*>(x[t]);
    for (int t = 0; t < T; ++t) {
      for (int n = 0; n < N; ++n) sum[t][n] = _mm512_setzero_ps();
    }
    const auto step = [&](int64_t k) __attribute__((always_inline)) {
      if constexpr (N == 1) {
        _mm_prefetch(w.next + k, _MM_HINT_T1);
        const auto b = Multiply::load(w.rows + k);
        for (int t = 0; t < T; ++t) {
          sum[t][0] = Multiply::multiply_add(sum[t][0], Multiply::load(row[t] + k), b);
        }
        return;
      }
      typename Multiply::Vector a[T];
      for (int t = 0; t < T; ++t) a[t] = Multiply::load(row[t] + k);
      for (int n = 0; n < N; ++n) {
        _mm_prefetch(w.next + n * w.step + k, _MM_HINT_T1);
        const auto b = Multiply::load(w.rows + n * w.step + k);
        for (int t = 0; t < T; ++t) sum[t][n] = Multiply::multiply_add(sum[t][n], a[t], b);
      }
    };
    int64_t k = 0;
    // So few rounds that the processor foresees the last one: what it mistakes costs single rows a tenth.
    constexpr int64_t kRound = N == 1 ? 4 * kLength : kLength;
    for (; k + kRound <= depth; k += kRound) {
      for (int64_t i = 0; i < kRound; i += kLength) step(k + i);
    }
    for (; k + kLength <= depth; k += kLength) step(k);
    if (k < depth) {
      for (int n = 0; n < N; ++n) {
        const auto b = Multiply::load_part(w.rows + n * w.step + k, depth - k);
        for (int t = 0; t < T; ++t) {
          sum[t][n] = Multiply::multiply_add(sum[t][n], Multiply::load_part(row[t] + k, depth - k), b);
        }
      }
    }
  }

  // The total of sum[t][n] to out[t * out_stride + n * out_step], n < count.
  template <int T, int N>
  static inline __attribute__((always_inline)) void store(const __m512 (&sum)[T][N], int count, float* out,
                                                          int64_t out_stride, int64_t out_step) {
    for (int t = 0; t < T; ++t) {
      for (int n = 0; n < N; n += 4) {
        constexpr int kLast = N - 1;
        alignas(16) float four[4];
        _mm_store_ps(four, sums(sum[t][n], sum[t][std::min(n + 1, kLast)], sum[t][std::min(n + 2, kLast)],
                                sum[t][std::min(n + 3, kLast)]));
        for (int i = 0; i < std::min(4, count - n); ++i) out[t * out_stride + (n + i) * out_step] = four[i];
      }
    }
  }

  // The sums of four vectors, each in the same order.
  static __m128 sums(__m512 a, __m512 b, __m512 c, __m512 d) {
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    const __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    const __m512 abcd = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  }

  // One row of w after the other, as the processor's own prefetching likes it best. Lines are fetched a
  // little ahead of it, or far ahead where so many loads belong to each of them that its own look ahead is
  // short.
  template <int T>
  static void in_order(Rows x, const DotProduct& product) {
    constexpr int64_t kAhead = (T <= 2 ? 16 : T == 3 ? 96 : 128) * 64 / sizeof(Element);
    const auto* w = static_cast<const Element*>(product.w);
    for (int64_t n = 0; n < product.columns; n += 4) {
      const int count = static_cast<int>(std::min<int64_t>(4, product.columns - n));
      __m512 sum[T][4] = {};
      for (int i = 0; i < count; ++i, w += product.w_stride) {
        const bool last = n + i + 1 == product.columns && product.next;
        __m512 one[T][1];
        add_up<T, 1>(x, {w, last ? static_cast<const Element*>(product.next) : w + kAhead, 0}, product.depth,
                     one);
        for (int t = 0; t < T; ++t) sum[t][i] = one[t][0];
      }
      store<T, 4>(sum, count, product.out + n, product.out_stride, 1);
    }
  }

  // As many groups of N * pages rows as there are, from row n on. The rows of a group that are read side by
  // side lie `pages` rows apart, those between them come next: rows that share a page of 4 KiB are not read
  // side by side, which takes up to two fifths of the bandwidth (Zen 4).
  template <int T, int N>
  static int64_t side_by_side(Rows x, const DotProduct& product, int64_t pages, int64_t n) {
    const int64_t stride = product.w_stride, group = N * pages;
    for (; n + group <= product.columns; n += group) {
      const Element* rows = static_cast<const Element*>(product.w) + n * stride;
      const auto* next = n + group < product.columns ? rows + group * stride
                         : product.next              ? static_cast<const Element*>(product.next)
                                                     : rows;
      for (int64_t i = 0; i < pages; ++i) {
        __m512 sum[T][N];
        add_up<T, N>(x, {rows + i * stride, next + i * stride, pages * stride}, product.depth, sum);
        store<T, N>(sum, N, product.out + n + i, product.out_stride, pages);
      }
    }
    return n;
  }

  // As much of x as stays in the first-level cache while w streams past.
  static constexpr int64_t kNearBytes = 20 * 1024;

  template <int T>
  static void all_columns(Rows x, const DotProduct& product) {
    // Floats need twice the instructions a line, and only single tokens gain.
    if constexpr (kOrder == RowOrder::kInOrder && (T == 1 || Multiply::kStep > 1)) {
      if (T * product.depth * int64_t{sizeof(Element)} <= kNearBytes) return in_order<T>(x, product);
    }
    constexpr int N = T == 1 ? 12 : 24 / T;  // as many sums as registers hold, and streams as memory likes
    constexpr int64_t kPage = 4096 / sizeof(Element);
    int64_t n = side_by_side<T, N>(x, product,
                                   std::max<int64_t>(1, kPage / std::max<int64_t>(1, product.w_stride)), 0);
    n = side_by_side<T, N>(x, product, 1, n);
    side_by_side<T, 1>(x, product, 1, n);
  }

  static void run(Rows x, int num_rows, const DotProduct& product) {
    using AllColumns = void (*)(Rows, const DotProduct&);
    static constexpr AllColumns kAll[] = {all_columns<1>, all_columns<2>, all_columns<3>, all_columns<4>,
                                          all_columns<5>, all_columns<6>, all_columns<7>, all_columns<8>};
    static_assert(std::size(kAll) == kMostDotRows);
    kAll[num_rows - 1](x, product);
  }
};

}  // namespace
}  // namespace motley::kernels
