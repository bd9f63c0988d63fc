#include "motley/kernels/cpu/multiply.h"
#include "tests/kernels/support.h"

namespace motley::kernels::testing {
namespace {

class PackingTest : public KernelsTest {};

constexpr int64_t kFirst = 3;

TEST_P(PackingTest, ColumnsOfGatheredRows) {
  for (const int64_t depth : {1, 2, 17, 31, 64, 515}) {
    for (const int num_rows : {1, 3, 15, 16, 17, 33, 63, 64}) {
      const int64_t width = depth + kFirst + 2;
      const Data x(type(), num_rows * width, 1);
      auto rows = x.rows(num_rows, width);
      std::swap(rows.front(), rows.back());
      const int vectors = vectors_for(num_rows);
      std::vector<std::byte> panel(panel_bytes(panel_type(), depth, vectors), std::byte{0x7f});
      const Panel to = kernels().panel(panel_type(), panel.data(), depth, vectors);
      kernels().pack_columns(type(), rows.data(), num_rows, kFirst, depth, to);
      const int64_t padded = panel_type() == DType::kBFloat16 ? depth + depth % 2 : depth;
      for (int64_t k = 0; k < padded; ++k) {
        for (int lane = 0; lane < vectors * kVectorLanes; ++lane) {
          const int row = lane == 0 ? num_rows - 1 : lane == num_rows - 1 ? 0 : lane;
          const double expected = k < depth && lane < num_rows ? x[row * width + kFirst + k] : 0.0;
          ASSERT_EQ(panel_value(to, k, lane), expected)
              << "depth " << depth << ", rows " << num_rows << ", k " << k << ", lane " << lane;
        }
      }
    }
  }
}

TEST_P(PackingTest, RowsOfAMatrix) {
  for (const int64_t depth : {1, 2, 17, 64, 515}) {
    for (const int count : {1, 15, 16, 17, 40, 64}) {
      const int64_t width = count + kFirst + 1;
      const Data w(type(), depth * width, 2);
      const int vectors = vectors_for(count);
      std::vector<std::byte> memory(panel_bytes(panel_type(), depth, vectors), std::byte{0x7f});
      const Panel panel = kernels().panel(panel_type(), memory.data(), depth, vectors);
      pack_matrix(kernels(), type(), w.at(0), width, kFirst, count, panel);
      const int64_t padded = panel_type() == DType::kBFloat16 ? depth + depth % 2 : depth;
      for (int64_t k = 0; k < padded; ++k) {
        for (int lane = 0; lane < panel.lanes(); ++lane) {
          const double expected = k < depth && lane < count ? w[k * width + kFirst + lane] : 0.0;
          ASSERT_EQ(panel_value(panel, k, lane), expected)
              << "depth " << depth << ", columns " << count << ", k " << k << ", lane " << lane;
        }
      }
    }
  }
}

TEST_P(PackingTest, Transpose) {
  for (const int64_t depth : {1, 2, 17, 64, 511}) {
    for (const int count : {1, 15, 16, 17, 96}) {
      const int64_t width = count + kFirst + 1;
      const int64_t stride = depth + 1;
      const Data a(type(), depth * width, 3);
      std::vector<std::byte> out(count * stride * size_of(panel_type()), std::byte{0x7f});
      kernels().transpose(type(), a.rows(depth, width).data(), depth, kFirst, count, panel_type(), stride,
                          out.data());
      for (int i = 0; i < count; ++i) {
        const bool padded = panel_type() == DType::kBFloat16 && depth % 2 == 1;
        for (int64_t k = 0; k < depth + (padded ? 1 : 0); ++k) {
          const void* at = offset(out.data(), panel_type(), i * stride + k);
          const double found = panel_type() == DType::kFloat32
                                   ? *static_cast<const float*>(at)
                                   : bf16_value(*static_cast<const uint16_t*>(at));
          ASSERT_EQ(found, k < depth ? a[k * width + kFirst + i] : 0.0)
              << "depth " << depth << ", columns " << count << ", k " << k << ", i " << i;
        }
      }
    }
  }
}

TEST_P(PackingTest, TileToPanelAndToRows) {
  constexpr int kColumns[] = {1, 2, 15, 16, 17, 48};
  for (const int columns : kColumns) {
    for (const int num_rows : {1, 9, 16, 17, 41, 64}) {
      const int vectors = vectors_for(num_rows);
      const int lanes = vectors * kVectorLanes;
      const Data values(DType::kFloat32, columns * lanes, 4);
      std::vector<float> c(columns * lanes);
      for (size_t i = 0; i < c.size(); ++i) c[i] = static_cast<float>(values[i]);

      std::vector<std::byte> panel(panel_bytes(panel_type(), columns, vectors), std::byte{0x7f});
      const Panel to = kernels().panel(panel_type(), panel.data(), columns, vectors);
      kernels().pack_tile(c.data(), columns, to);
      for (int k = 0; k < columns; ++k) {
        for (int lane = 0; lane < lanes; ++lane) {
          const float value = c[k * lanes + lane];
          const float expected = panel_type() == DType::kFloat32 ? value : bf16_value(bf16_bits(value));
          ASSERT_EQ(panel_value(to, k, lane), expected) << columns;
        }
      }

      const int64_t width = kFirst + columns + 2;
      Data out(type(), num_rows * width, 5);
      const Data before = out;
      kernels().store_transposed(c.data(), columns, vectors, num_rows, type(),
                                 out.rows(num_rows, width).data(), kFirst);
      for (int row = 0; row < num_rows; ++row) {
        for (int64_t i = 0; i < width; ++i) {
          const bool inside = i >= kFirst && i < kFirst + columns;
          const float value = inside ? c[(i - kFirst) * lanes + row] : 0;
          const double rounded = type() == DType::kFloat32 ? value : bf16_value(bf16_bits(value));
          ASSERT_EQ(out[row * width + i], inside ? rounded : before[row * width + i])
              << columns << " columns, row " << row << " at " << i;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, PackingTest, ::testing::ValuesIn(cases()), case_name);

}  // namespace
}  // namespace motley::kernels::testing
