// Products on 512-bit vectors. Multiply says what a vector holds (16 floats, or 16 pairs of bf16) and
// multiplies; everything else is the same for both. See simd.h for the anonymous namespace.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <iterator>

#include "motley/kernels/cpu/avx512_pack.h"
#include "motley/kernels/cpu/table.h"

namespace motley::kernels {
namespace {

struct MultiplyFloats {
  using Element = float;
  using Vector = __m512;
  static constexpr int kStep = 1;  // elements of the depth in one lane
  static Vector load(const void* from) { return _mm512_loadu_ps(from); }
  static Vector load_part(const Element* from, int64_t n) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), from);
  }
  static Vector broadcast(const Element* from) { return _mm512_set1_ps(*from); }
  static __m512 multiply_add(__m512 sum, Vector a, Vector b) { return _mm512_fmadd_ps(a, b, sum); }
};

// M rows by V vectors stay in registers over the whole depth: 24 sums, V of the panel, and the rows'
// elements come from memory within the multiplication.
template <class Multiply>
struct Avx512Tile {
  using Element = typename Multiply::Element;

  // Elements of a row in one cache line.
  static constexpr int64_t kLine = 64 / sizeof(Element);

  template <int V, int M>
  static inline __attribute__((always_inline)) const std::byte* step(const std::byte* p,
                                                                     const Element* const (&row)[M],
                                                                     int64_t k, __m512 (&sum)[M][V]) {
    typename Multiply::Vector b[V];
    for (int v = 0; v < V; ++v) b[v] = Multiply::load(p + v * 64);
    for (int i = 0; i < M; ++i) {
      const auto a = Multiply::broadcast(row[i] + k);
      for (int v = 0; v < V; ++v) sum[i][v] = Multiply::multiply_add(sum[i][v], a, b[v]);
    }
    return p + V * 64;
  }

  // depth is a multiple of kStep.
  template <int V, int M>
  static void block(const Tile& tile) {
    const auto* p = static_cast<const std::byte*>(tile.panel.data);
    const int64_t depth = tile.depth;
    const Element* row[M];
    for (int i = 0; i < M; ++i) row[i] = static_cast<const Element*>(tile.rows[i]);
    __m512 sum[M][V];
    for (int i = 0; i < M; ++i) {
      for (int v = 0; v < V; ++v) sum[i][v] = _mm512_setzero_ps();
    }
    if (tile.from_c) {
      for (int i = 0; i < M; ++i) {
        for (int v = 0; v < V; ++v) sum[i][v] = _mm512_loadu_ps(tile.c + (i * V + v) * 16);
      }
    }
    int64_t k = 0;
    int64_t ahead = 0;
    for (; k + kLine <= depth; k += kLine, ahead += tile.next_step) {
      for (int i = 0; i < M; ++i) {
        _mm_prefetch(static_cast<const char*>(tile.next[i]) + ahead, _MM_HINT_T1);
      }
      for (int64_t j = 0; j < kLine; j += Multiply::kStep) p = step<V, M>(p, row, k + j, sum);
    }
    for (; k < depth; k += Multiply::kStep) p = step<V, M>(p, row, k, sum);
    if (tile.out == nullptr) {
      for (int i = 0; i < M; ++i) {
        for (int v = 0; v < V; ++v) _mm512_storeu_ps(tile.c + (i * V + v) * 16, sum[i][v]);
      }
    } else if (tile.out_type == DType::kFloat32) {
      finish<FloatRow>(tile, sum);
    } else {
      finish<PairRow>(tile, sum);
    }
  }

  // Floats or bf16 of one output row. Masked stores cost several times what whole ones do (Zen 4).
  struct FloatRow {
    using Element = float;
    static __m512 load(const float* from) { return _mm512_loadu_ps(from); }
    static __m512 load(const float* from, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, from); }
    static void store(float* to, __m512 v) { _mm512_storeu_ps(to, v); }
    static void store(float* to, __mmask16 mask, __m512 v) { _mm512_mask_storeu_ps(to, mask, v); }
  };
  struct PairRow {
    using Element = uint16_t;
    static __m512 wide(__m256i v) { return _mm512_castsi512_ps(widen(v)); }
    static __m512 load(const uint16_t* from) {
      return wide(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    }
    static __m512 load(const uint16_t* from, __mmask16 mask) {
      return wide(_mm256_maskz_loadu_epi16(mask, from));
    }
    static void store(uint16_t* to, __m512 v) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), to_bf16(v));
    }
    static void store(uint16_t* to, __mmask16 mask, __m512 v) {
      _mm256_mask_storeu_epi16(to, mask, to_bf16(v));
    }
  };

  template <class Row, int V, int M>
  static inline __attribute__((always_inline)) void finish(const Tile& tile, const __m512 (&sum)[M][V]) {
    for (int i = 0; i < M; ++i) {
      auto* out = static_cast<typename Row::Element*>(tile.out[i]);
      if (tile.count == V * 16) {
        for (int v = 0; v < V; ++v) {
          const __m512 s = tile.accumulate ? _mm512_add_ps(sum[i][v], Row::load(out + v * 16)) : sum[i][v];
          Row::store(out + v * 16, s);
        }
        continue;
      }
      for (int v = 0; v < V && v * 16 < tile.count; ++v) {
        const int left = tile.count - v * 16;
        const auto mask = static_cast<__mmask16>(left >= 16 ? 0xffff : (1 << left) - 1);
        const __m512 s =
            tile.accumulate ? _mm512_add_ps(sum[i][v], Row::load(out + v * 16, mask)) : sum[i][v];
        Row::store(out + v * 16, mask, s);
      }
    }
  }

  static void run(const Tile& tile) {
    using Block = void (*)(const Tile&);
    static constexpr Block kBlocks[kMaxVectors][kTileRows] = {
        {block<1, 1>, block<1, 2>, block<1, 3>, block<1, 4>, block<1, 5>, block<1, 6>},
        {block<2, 1>, block<2, 2>, block<2, 3>, block<2, 4>, block<2, 5>, block<2, 6>},
        {block<3, 1>, block<3, 2>, block<3, 3>, block<3, 4>, block<3, 5>, block<3, 6>},
        {block<4, 1>, block<4, 2>, block<4, 3>, block<4, 4>, block<4, 5>, block<4, 6>}};
    const Block block = kBlocks[tile.panel.vectors - 1][tile.num_rows - 1];
    const int64_t left = tile.depth % Multiply::kStep;
    if (left == 0) return block(tile);
    // An odd depth: the rows may end before their last pair does.
    Tile whole = tile;
    whole.depth = tile.depth - left;
    whole.out = nullptr;
    block(whole);
    Element ends[kTileRows][Multiply::kStep] = {};
    const void* at[kTileRows];
    for (int i = 0; i < tile.num_rows; ++i) {
      ends[i][0] = static_cast<const Element*>(tile.rows[i])[whole.depth];
      at[i] = ends[i];
    }
    Tile last = tile;
    last.panel = tile.panel.from(whole.depth);
    last.rows = last.next = at;
    last.depth = Multiply::kStep;
    last.from_c = true;
    block(last);
  }
};

// T rows of x against N rows of w; vectors run along the depth.
template <class Multiply>
struct Avx512Dot {
  using Element = typename Multiply::Element;
  static constexpr int64_t kLength = 16 * Multiply::kStep;

  // N rows of w, `step` elements apart, and as many to fetch meanwhile.
  struct WeightRows {
    const Element* rows;
    const Element* next;
    int64_t step;
  };

  // The sum of row n goes to out[n * out_step].
  template <int T, int N>
  static void block(Rows x, const WeightRows& w, int64_t depth, float* out, int64_t out_stride,
                    int64_t out_step) {
    const Element* row[T];
    for (int t = 0; t < T; ++t) row[t] = static_cast<const Element*>(x[t]);
    __m512 sum[T][N];
    for (int t = 0; t < T; ++t) {
      for (int n = 0; n < N; ++n) sum[t][n] = _mm512_setzero_ps();
    }
    int64_t k = 0;
    for (; k + kLength <= depth; k += kLength) {
      typename Multiply::Vector a[T];
      for (int t = 0; t < T; ++t) a[t] = Multiply::load(row[t] + k);
      for (int n = 0; n < N; ++n) {
        _mm_prefetch(w.next + n * w.step + k, _MM_HINT_T1);
        const auto b = Multiply::load(w.rows + n * w.step + k);
        for (int t = 0; t < T; ++t) sum[t][n] = Multiply::multiply_add(sum[t][n], a[t], b);
      }
    }
    if (k < depth) {
      for (int n = 0; n < N; ++n) {
        const auto b = Multiply::load_part(w.rows + n * w.step + k, depth - k);
        for (int t = 0; t < T; ++t) {
          sum[t][n] = Multiply::multiply_add(sum[t][n], Multiply::load_part(row[t] + k, depth - k), b);
        }
      }
    }
    for (int t = 0; t < T; ++t) {
      for (int n = 0; n < N; n += 4) {
        const int left = N - n < 4 ? N - n : 4;
        alignas(16) float four[4];
        _mm_store_ps(four, sums(sum[t][n], sum[t][n + (left > 1 ? 1 : 0)], sum[t][n + (left > 2 ? 2 : 0)],
                                sum[t][n + (left > 3 ? 3 : 0)]));
        for (int i = 0; i < left; ++i) out[t * out_stride + (n + i) * out_step] = four[i];
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

  // Rows of w at a time: as many sums as registers hold, and no more streams than memory likes.
  static constexpr int rows_of_w(int num_rows) { return num_rows == 1 ? 12 : 24 / num_rows; }

  // As many groups of N * pages rows as there are, from row n on. The rows of a block lie `pages` rows apart,
  // those between them are the next block's: rows that share a page of 4 KiB are not read side by side, which
  // takes up to two fifths of the bandwidth (Zen 4).
  template <int T, int N>
  static int64_t blocks(Rows x, const DotProduct& product, int64_t pages, int64_t n) {
    const int64_t stride = product.w_stride, group = N * pages;
    for (; n + group <= product.columns; n += group) {
      const Element* rows = static_cast<const Element*>(product.w) + n * stride;
      const auto* next = n + group < product.columns ? rows + group * stride
                         : product.next              ? static_cast<const Element*>(product.next)
                                                     : rows;
      for (int64_t i = 0; i < pages; ++i) {
        block<T, N>(x, {rows + i * stride, next + i * stride, pages * stride}, product.depth,
                    product.out + n + i, product.out_stride, pages);
      }
    }
    return n;
  }

  template <int T>
  static void all_columns(Rows x, const DotProduct& product) {
    constexpr int N = rows_of_w(T);
    constexpr int64_t kPage = 4096 / sizeof(Element);
    int64_t n =
        blocks<T, N>(x, product, std::max<int64_t>(1, kPage / std::max<int64_t>(1, product.w_stride)), 0);
    n = blocks<T, N>(x, product, 1, n);
    if constexpr (N > 4) n = blocks<T, 4>(x, product, 1, n);
    blocks<T, 1>(x, product, 1, n);
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
