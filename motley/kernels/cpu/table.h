// One table of function pointers per family of instructions; the drivers of this folder are written
// against it once.
#pragma once

#include "motley/kernels/cpu/types.h"

namespace motley::kernels {

// Each of `num_rows` rows points at contiguous elements.
using Rows = const void* const*;

// One tile: some rows against a panel, over the whole depth.
// sum(i, lane) = sum over k of rows[i][k] * panel(k, lane), one accumulator each, in ascending k.
struct Tile {
  Panel panel;
  Rows rows;  // of the panel's type; equally spaced if the family wants it
  int num_rows;
  int64_t depth;

  // Lines that are fetched into the second-level cache meanwhile: num_next of them at a time, at `next`,
  // then `next_step` bytes further, for every 64 bytes of a row. Any address will do. Vector products always
  // fetch num_rows of them.
  Rows next;
  int num_next = 0;
  int64_t next_step = 64;

  float* c;             // [num_rows, lanes]
  bool from_c = false;  // sums start from c
  // Where the sums go, the first `count` lanes of them, rounded once; null: into c.
  void* const* out = nullptr;
  DType out_type = DType::kFloat32;
  int count = 0;
  bool accumulate = false;  // added to what out holds
};

// out[t * out_stride + n] = sum over k of x[t][k] * w[n * w_stride + k] for the few rows of decoding: w is
// read once, as it lies.
struct DotProduct {
  const void* w;
  int64_t w_stride;
  int64_t columns;
  int64_t depth;
  float* out;
  int64_t out_stride;
  const void* next = nullptr;  // what is read after w, if that is known: fetched in time
};

struct CpuKernels {
  const char* name;
  // What products of bf16 are computed in: bf16 panels where the processor multiplies them, else fp32.
  DType panel_of_bf16;
  DType panel_type(DType type) const { return type == DType::kFloat32 ? type : panel_of_bf16; }

  using TileFunction = void(const Tile& tile);
  TileFunction* tile_f32;
  TileFunction* tile_bf16;  // only where panel_of_bf16 is bf16
  TileFunction* tile(DType panel_type) const { return panel_type == DType::kFloat32 ? tile_f32 : tile_bf16; }
  // Most rows of a tile of bf16. More than kTileRows: the family reads several rows at once and wants them
  // equally spaced, always.
  int tile_rows_bf16 = kTileRows;
  int tile_rows(DType panel_type) const { return panel_type == DType::kFloat32 ? kTileRows : tile_rows_bf16; }
  // Numbers of rows that fill what is computed together.
  int tile_unit(DType panel_type) const { return wants_spaced_rows(panel_type) ? 32 : kTileRows; }
  bool wants_spaced_rows(DType panel_type) const { return tile_rows(panel_type) > kTileRows; }
  Panel panel(DType type, void* data, int64_t depth, int vectors) const {
    return wants_spaced_rows(type) ? Panel::by_vector(type, data, depth, vectors)
                                   : Panel::by_unit(type, data, depth, vectors);
  }
  // Panels of bf16 that share one reading of the weights: products so fast that memory could not follow.
  int block_panels_bf16 = 1;
  int block_panels(DType type) const { return panel_type(type) == DType::kFloat32 ? 1 : block_panels_bf16; }
  // Columns of a weight that all panels of a block are multiplied with before the next: so many that they,
  // the next ones and the panels stay in the second-level cache.
  int block_columns_bf16 = kTileColumns;
  int block_columns(DType type) const {
    return panel_type(type) == DType::kFloat32 ? kTileColumns : block_columns_bf16;
  }

  // panel(k, lane) = rows[lane][first + k]; lanes without a row are zero.
  void (*pack_columns)(DType type, Rows rows, int num_rows, int64_t first, int64_t depth, const Panel& panel);
  // panel(k, lane) = rows[k][first + lane] for lane < count; other lanes are zero.
  void (*pack_rows)(DType type, Rows rows, int64_t depth, int64_t first, int count, const Panel& panel);
  // out[i * stride + k] = rows[k][first + i], i < count, k < depth; an odd bf16 depth gets a zero behind it.
  void (*transpose)(DType type, Rows rows, int64_t depth, int64_t first, int count, DType out_type,
                    int64_t stride, void* out);
  // Tiles of activations come out as c[column * lanes + token].
  // panel(column, token) = c: the panel of the next product.
  void (*pack_tile)(const float* c, int64_t columns, const Panel& panel);
  // out[token][first + column] = c, rounded.
  void (*store_transposed)(const float* c, int columns, int vectors, int num_tokens, DType type,
                           void* const* out, int64_t first);
  // out[i] (+)= c[i], rounded once.
  void (*store)(const float* c, int64_t count, DType type, void* out, bool accumulate);

  void (*convert)(DType type, const void* in, int64_t count, DType out_type, void* out);

  // x holds at most kMostDotRows rows.
  void (*dot_rows)(DType type, Rows x, int num_rows, const DotProduct& product);

  // a[i] = activation of (gate[i], up[i]); up is not read without a gate. a may be gate.
  void (*activate)(const ActivationSpec& spec, const float* gate, const float* up, int64_t count, float* a);
  // From dA (without the gate weight) and H: dgate, dup = gate_weight * dA * activation'(H), and
  // activated = gate_weight * A, rounded to type. Returns <dA, A>.
  float (*activate_backward)(const ActivationSpec& spec, const float* da, DType type, const void* gate,
                             const void* up, float gate_weight, int64_t count, void* dgate, void* dup,
                             void* activated);

  // y = x / rms(x) * weight; returns 1 / rms(x), which backward takes as `scale`. dweight is added to.
  float (*rms_norm)(DType type, const void* x, const void* weight, int64_t count, double eps, void* y);
  void (*rms_norm_backward)(DType type, const void* dy, const void* x, const void* weight, int64_t count,
                            float scale, void* dx, float* dweight);
  // Rotary embedding of one head: pairs (x[i], x[i + half]) turned, sines times `sign`.
  void (*rotate)(DType type, const void* x, const float* cosine, const float* sine, float sign, int64_t half,
                 void* y);

  // out[i] = sum over n of weights[n] * rows[n][i], added in order, rounded once; weights null for ones.
  void (*weighted_sum)(DType type, Rows rows, const float* weights, int64_t num_rows, int64_t first,
                       int64_t count, DType out_type, void* out, bool accumulate);
};

}  // namespace motley::kernels
