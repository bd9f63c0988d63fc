// Products on 512-bit vectors. Multiply says what a vector holds (16 floats, or 16 pairs of bf16) and
// multiplies; everything else is the same for both. See simd.h for the anonymous namespace.
#pragma once

#include <immintrin.h>

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

  template <int T, int N>
  static void block(Rows x, const Element* w, int64_t w_stride, int64_t depth, float* out,
                    int64_t out_stride) {
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
        const Element* at = w + n * w_stride + k;
        _mm_prefetch(at + N * w_stride, _MM_HINT_T1);  // the next N rows
        const auto b = Multiply::load(at);
        for (int t = 0; t < T; ++t) sum[t][n] = Multiply::multiply_add(sum[t][n], a[t], b);
      }
    }
    if (k < depth) {
      for (int n = 0; n < N; ++n) {
        const auto b = Multiply::load_part(w + n * w_stride + k, depth - k);
        for (int t = 0; t < T; ++t) {
          sum[t][n] = Multiply::multiply_add(sum[t][n], Multiply::load_part(row[t] + k, depth - k), b);
        }
      }
    }
    for (int t = 0; t < T; ++t) {
      for (int n = 0; n < N; n += 4) {
        const int left = N - n < 4 ? N - n : 4;
        const __m128 four = sums(sum[t][n], sum[t][n + (left > 1 ? 1 : 0)], sum[t][n + (left > 2 ? 2 : 0)],
                                 sum[t][n + (left > 3 ? 3 : 0)]);
        _mm_mask_storeu_ps(out + t * out_stride + n, static_cast<__mmask8>((1 << left) - 1), four);
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

  template <int N>
  static void columns_of(Rows x, int num_rows, const Element* w, int64_t w_stride, int64_t depth, float* out,
                         int64_t out_stride) {
    int t = 0;
    for (; t + 4 <= num_rows; t += 4)
      block<4, N>(x + t, w, w_stride, depth, out + t * out_stride, out_stride);
    if (num_rows - t == 3) block<3, N>(x + t, w, w_stride, depth, out + t * out_stride, out_stride);
    if (num_rows - t == 2) block<2, N>(x + t, w, w_stride, depth, out + t * out_stride, out_stride);
    if (num_rows - t == 1) block<1, N>(x + t, w, w_stride, depth, out + t * out_stride, out_stride);
  }

  static void run(Rows x, int num_rows, const void* w, int64_t w_stride, int64_t columns, int64_t depth,
                  float* out, int64_t out_stride) {
    const auto* from = static_cast<const Element*>(w);
    int64_t n = 0;
    for (; n + 6 <= columns; n += 6) {
      columns_of<6>(x, num_rows, from + n * w_stride, w_stride, depth, out + n, out_stride);
    }
    for (; n < columns; ++n) {
      columns_of<1>(x, num_rows, from + n * w_stride, w_stride, depth, out + n, out_stride);
    }
  }
};

}  // namespace
}  // namespace motley::kernels
