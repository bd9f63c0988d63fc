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

}  // namespace
}  // namespace motley::kernels
