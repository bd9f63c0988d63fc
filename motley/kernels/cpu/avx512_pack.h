// Packing with AVX-512 shuffles: everything is a transposition of 16 x 16 units of 32 bits, a float or a
// pair of bf16. Included by the AVX-512 families only (see simd.h for the anonymous namespace).
#pragma once

#include <immintrin.h>

#include "motley/kernels/cpu/simd.h"
#include "motley/kernels/cpu/table.h"

namespace motley::kernels {
namespace {

// r[i] unit j becomes r[j] unit i.
inline void transpose_units(__m512i (&r)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

inline __m512i widen(__m256i bf16) { return _mm512_slli_epi32(_mm512_cvtepu16_epi32(bf16), 16); }

// How sources become units of 32 bits along a row: kStep elements a unit.
struct FloatUnits {
  static constexpr int kStep = 1;
  static constexpr int64_t kSize = 4;  // bytes of a source element
  static __m512i load(const void* row, int64_t k) {
    return _mm512_loadu_si512(static_cast<const float*>(row) + k);
  }
  static __m512i load_part(const void* row, int64_t k, int64_t n) {
    return _mm512_maskz_loadu_epi32(static_cast<__mmask16>((1u << n) - 1),
                                    static_cast<const float*>(row) + k);
  }
};
struct WidenedUnits {
  static constexpr int kStep = 1;
  static constexpr int64_t kSize = 2;
  static __m512i load(const void* row, int64_t k) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(static_cast<const uint16_t*>(row) + k)));
  }
  static __m512i load_part(const void* row, int64_t k, int64_t n) {
    return widen(_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1),
                                          static_cast<const uint16_t*>(row) + k));
  }
};
struct PairUnits {
  static constexpr int kStep = 2;
  static constexpr int64_t kSize = 2;
  static __m512i load(const void* row, int64_t k) {
    return _mm512_loadu_si512(static_cast<const uint16_t*>(row) + k);
  }
  static __m512i load_part(const void* row, int64_t k, int64_t n) {
    return _mm512_maskz_loadu_epi16((uint32_t{1} << n) - 1, static_cast<const uint16_t*>(row) + k);
  }
};

template <class Units>
void pack_columns_units(Rows rows, int num_rows, int64_t first, int64_t depth, const Panel& panel) {
  constexpr int64_t kBlock = 16 * Units::kStep;
  const int64_t next = panel.unit_lines;
  for (int v = 0; v < panel.vectors; ++v) {
    const int count = num_rows - v * 16 < 16 ? num_rows - v * 16 : 16;
    for (int64_t k = 0; k < depth; k += kBlock) {
      const int64_t n = depth - k < kBlock ? depth - k : kBlock;
      __m512i r[16];
      for (int i = 0; i < 16; ++i) {
        r[i] = i >= count    ? _mm512_setzero_si512()
               : n == kBlock ? Units::load(rows[v * 16 + i], first + k)
                             : Units::load_part(rows[v * 16 + i], first + k, n);
      }
      transpose_units(r);
      const int64_t units = (n + Units::kStep - 1) / Units::kStep;
      auto* to = reinterpret_cast<__m512i*>(panel.line(k / Units::kStep, v));
      if (units == 16) {
        for (int i = 0; i < 16; ++i) _mm512_storeu_si512(to + i * next, r[i]);
      } else {
        for (int i = 0; i < units; ++i) _mm512_storeu_si512(to + i * next, r[i]);
      }
    }
  }
}

// Two rows of bf16 woven into pairs, 16 lanes in each half.
struct Woven {
  __m512i low, high;
};
inline Woven weave(__m512i even, __m512i odd) {
  const __m512i a = _mm512_unpacklo_epi16(even, odd);  // lanes 0-3, 8-11, 16-19, 24-27
  const __m512i b = _mm512_unpackhi_epi16(even, odd);
  const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  return {_mm512_permutex2var_epi64(a, low, b), _mm512_permutex2var_epi64(a, high, b)};
}
// Up to 32 lanes of rows k and k + 1 (zeros past the depth).
inline Woven load_woven(Rows rows, int64_t k, int64_t depth, int64_t first, int64_t count) {
  const uint32_t mask = count >= 32 ? ~uint32_t{0} : (uint32_t{1} << count) - 1;
  const __m512i even = _mm512_maskz_loadu_epi16(mask, static_cast<const uint16_t*>(rows[k]) + first);
  const __m512i odd = k + 1 < depth
                          ? _mm512_maskz_loadu_epi16(mask, static_cast<const uint16_t*>(rows[k + 1]) + first)
                          : _mm512_setzero_si512();
  return weave(even, odd);
}

// A block of columns is a short piece of each row, which the processor does not foresee.
constexpr int64_t kRowsAhead = 16;
inline void fetch_ahead(Rows rows, int64_t k, int64_t depth, int64_t first_byte, int64_t bytes) {
  if (k + kRowsAhead >= depth) return;
  const char* at = static_cast<const char*>(rows[k + kRowsAhead]) + first_byte;
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(at + i, _MM_HINT_T0);
}

template <class Units>
void pack_rows_units(Rows rows, int64_t depth, int64_t first, int count, const Panel& panel) {
  constexpr int64_t kSize = Units::kSize;
  for (int64_t k = 0; k < depth; ++k) {
    fetch_ahead(rows, k, depth, first * kSize, count * kSize);
    for (int v = 0; v < panel.vectors; ++v) {
      const int n = count - v * 16;
      const int64_t at = first + v * 16;
      _mm512_storeu_si512(panel.line(k, v),
                          n >= 16 ? Units::load(rows[k], at) : Units::load_part(rows[k], at, n));
    }
  }
}

inline void pack_rows_pairs(Rows rows, int64_t depth, int64_t first, int count, const Panel& panel) {
  for (int64_t k = 0; k < depth; k += 2) {
    fetch_ahead(rows, k, depth, first * 2, count * 2);
    fetch_ahead(rows, k + 1, depth, first * 2, count * 2);
    for (int v = 0; v < panel.vectors; v += 2) {
      const Woven woven = load_woven(rows, k, depth, first + v * 16, count - v * 16);
      _mm512_storeu_si512(panel.line(k / 2, v), woven.low);
      if (v + 1 < panel.vectors) _mm512_storeu_si512(panel.line(k / 2, v + 1), woven.high);
    }
  }
}

template <class Units>
void transpose_rows(Rows rows, int64_t depth, int64_t first, int count, int64_t stride, float* out) {
  for (int64_t k = 0; k < depth; k += 16) {
    const int64_t n = depth - k < 16 ? depth - k : 16;
    for (int i = 0; i < count; i += 16) {
      const int m = count - i < 16 ? count - i : 16;
      __m512i r[16];
      for (int j = 0; j < 16; ++j) {
        r[j] = j < n ? Units::load_part(rows[k + j], first + i, m) : _mm512_setzero_si512();
      }
      transpose_units(r);
      const auto mask = static_cast<__mmask16>((1u << n) - 1);
      for (int j = 0; j < m; ++j) _mm512_mask_storeu_epi32(out + (i + j) * stride + k, mask, r[j]);
    }
  }
}

inline void transpose_pairs(Rows rows, int64_t depth, int64_t first, int count, int64_t stride,
                            uint16_t* out) {
  for (int64_t k = 0; k < depth; k += 32) {
    const int64_t pairs = depth - k < 32 ? (depth - k + 1) / 2 : 16;
    const uint32_t mask = pairs == 16 ? ~uint32_t{0} : (uint32_t{1} << (2 * pairs)) - 1;
    for (int i = 0; i < count; i += 32) {
      __m512i low[16], high[16];
      for (int j = 0; j < 16; ++j) {
        const Woven woven = j < pairs ? load_woven(rows, k + 2 * j, depth, first + i, count - i)
                                      : Woven{_mm512_setzero_si512(), _mm512_setzero_si512()};
        low[j] = woven.low;
        high[j] = woven.high;
      }
      transpose_units(low);
      transpose_units(high);
      for (int j = 0; j < 16 && i + j < count; ++j) {
        _mm512_mask_storeu_epi16(out + (i + j) * stride + k, mask, low[j]);
      }
      for (int j = 0; j < 16 && i + 16 + j < count; ++j) {
        _mm512_mask_storeu_epi16(out + (i + 16 + j) * stride + k, mask, high[j]);
      }
    }
  }
}

struct Avx512Packing {
  static void pack_columns(DType type, Rows rows, int num_rows, int64_t first, int64_t depth,
                           const Panel& panel) {
    if (type == DType::kFloat32) {
      pack_columns_units<FloatUnits>(rows, num_rows, first, depth, panel);
    } else if (panel.type == DType::kFloat32) {
      pack_columns_units<WidenedUnits>(rows, num_rows, first, depth, panel);
    } else {
      pack_columns_units<PairUnits>(rows, num_rows, first, depth, panel);
    }
  }
  static void pack_rows(DType type, Rows rows, int64_t depth, int64_t first, int count, const Panel& panel) {
    if (type == DType::kFloat32) {
      pack_rows_units<FloatUnits>(rows, depth, first, count, panel);
    } else if (panel.type == DType::kFloat32) {
      pack_rows_units<WidenedUnits>(rows, depth, first, count, panel);
    } else {
      pack_rows_pairs(rows, depth, first, count, panel);
    }
  }
  static void transpose(DType type, Rows rows, int64_t depth, int64_t first, int count, DType out_type,
                        int64_t stride, void* out) {
    if (type == DType::kFloat32) {
      transpose_rows<FloatUnits>(rows, depth, first, count, stride, static_cast<float*>(out));
    } else if (out_type == DType::kFloat32) {
      transpose_rows<WidenedUnits>(rows, depth, first, count, stride, static_cast<float*>(out));
    } else {
      transpose_pairs(rows, depth, first, count, stride, static_cast<uint16_t*>(out));
    }
  }
};

template <int W = 16>
inline __m256i to_bf16(__m512 v) {
  return (__m256i)Rounding<W>::to_bf16((typename VectorTypes<W>::F)v);
}

struct Avx512Tiles {
  static void pack_tile(const float* c, int64_t columns, const Panel& panel) {
    const int lanes = panel.lanes();
    if (panel.type == DType::kFloat32) {
      for (int64_t k = 0; k < columns; ++k) {
        for (int v = 0; v < panel.vectors; ++v) {
          _mm512_storeu_si512(panel.line(k, v), _mm512_loadu_si512(c + k * lanes + v * 16));
        }
      }
      return;
    }
    for (int64_t k = 0; k < columns; k += 2) {
      for (int v = 0; v < panel.vectors; ++v) {
        const __m512 even = _mm512_loadu_ps(c + k * lanes + v * 16);
        const __m512 odd =
            k + 1 < columns ? _mm512_loadu_ps(c + (k + 1) * lanes + v * 16) : _mm512_setzero_ps();
        const __m512i low = _mm512_cvtepu16_epi32(to_bf16(even));
        const __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(to_bf16(odd)), 16);
        _mm512_storeu_si512(panel.line(k / 2, v), _mm512_or_si512(low, high));
      }
    }
  }

  static void store_transposed(const float* c, int columns, int vectors, int num_tokens, DType type,
                               void* const* out, int64_t first) {
    const int lanes = vectors * kVectorLanes;
    for (int token = 0; token < num_tokens; token += 16) {
      const int tokens = num_tokens - token < 16 ? num_tokens - token : 16;
      for (int column = 0; column < columns; column += 16) {
        const int n = columns - column < 16 ? columns - column : 16;
        const auto mask = static_cast<__mmask16>((1u << n) - 1);
        __m512i r[16];
        for (int i = 0; i < 16; ++i) {
          r[i] = i < n ? _mm512_loadu_si512(c + (column + i) * lanes + token) : _mm512_setzero_si512();
        }
        transpose_units(r);
        for (int i = 0; i < tokens; ++i) {
          if (type == DType::kFloat32) {
            _mm512_mask_storeu_epi32(static_cast<float*>(out[token + i]) + first + column, mask, r[i]);
          } else {
            _mm256_mask_storeu_epi16(static_cast<uint16_t*>(out[token + i]) + first + column, mask,
                                     to_bf16(_mm512_castsi512_ps(r[i])));
          }
        }
      }
    }
  }
};

}  // namespace
}  // namespace motley::kernels
