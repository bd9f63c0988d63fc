// One table of function pointers per family of instructions; the drivers of this folder are written
// against it once.
#pragma once

#include "motley/kernels/cpu/types.h"

namespace motley::kernels {

// Each of `num_rows` rows points at contiguous elements.
using Rows = const void* const*;

struct CpuKernels {
  const char* name;
  // What products of bf16 are computed in: bf16 panels where the processor multiplies them, else fp32.
  DType panel_of_bf16;
  DType panel_type(DType type) const { return type == DType::kFloat32 ? type : panel_of_bf16; }

  // c[i * lanes + lane] (+)= sum over k of rows[i][k] * panel(k, lane): 1 to kTileRows rows of the panel's
  // type. One accumulator per element, added in ascending k. `next`, as many rows, are fetched into the
  // second-level cache meanwhile; where nothing comes next it is `rows`.
  using Tile = void(const void* panel, int vectors, Rows rows, Rows next, int num_rows, int64_t depth,
                    float* c, bool accumulate);
  Tile* tile_f32;
  Tile* tile_bf16;  // only where panel_of_bf16 is bf16
  Tile* tile(DType panel_type) const { return panel_type == DType::kFloat32 ? tile_f32 : tile_bf16; }

  // panel(k, lane) = rows[lane][first + k]; lanes without a row are zero.
  void (*pack_columns)(DType type, Rows rows, int num_rows, int64_t first, int64_t depth, DType panel_type,
                       int vectors, void* panel);
  // panel(k, lane) = rows[k][first + lane] for lane < count; other lanes are zero.
  void (*pack_rows)(DType type, Rows rows, int64_t depth, int64_t first, int count, DType panel_type,
                    int vectors, void* panel);
  // out[i * stride + k] = rows[k][first + i], i < count, k < depth; an odd bf16 depth gets a zero behind it.
  void (*transpose)(DType type, Rows rows, int64_t depth, int64_t first, int count, DType out_type,
                    int64_t stride, void* out);
  // Tiles of activations come out as c[column * lanes + token].
  // panel(column, token) = c: the panel of the next product.
  void (*pack_tile)(const float* c, int64_t columns, int vectors, DType panel_type, void* panel);
  // out[token][first + column] = c, rounded.
  void (*store_transposed)(const float* c, int columns, int vectors, int num_tokens, DType type,
                           void* const* out, int64_t first);
  // out[i] (+)= c[i], rounded once.
  void (*store)(const float* c, int64_t count, DType type, void* out, bool accumulate);

  void (*convert)(DType type, const void* in, int64_t count, DType out_type, void* out);

  // out[t * out_stride + n] = sum over k of x[t][k] * w[n * w_stride + k] for the few rows of decoding: w
  // is read once, as it lies.
  void (*dot_rows)(DType type, Rows x, int num_rows, const void* w, int64_t w_stride, int64_t columns,
                   int64_t depth, float* out, int64_t out_stride);

  // a[i] = activation of (gate[i], up[i]); up is not read without a gate. a may be gate.
  void (*activate)(const ActivationSpec& spec, const float* gate, const float* up, int64_t count, float* a);
  // From dA (without the gate weight) and H: dgate, dup = gate_weight * dA * activation'(H), and
  // activated = gate_weight * A, rounded to type. Returns <dA, A>.
  float (*activate_backward)(const ActivationSpec& spec, const float* da, DType type, const void* gate,
                             const void* up, float gate_weight, int64_t count, void* dgate, void* dup,
                             void* activated);

  // out[i] = sum over n of weights[n] * rows[n][i], added in order, rounded once; weights null for ones.
  void (*weighted_sum)(DType type, Rows rows, const float* weights, int64_t num_rows, int64_t first,
                       int64_t count, DType out_type, void* out, bool accumulate);
};

}  // namespace motley::kernels
