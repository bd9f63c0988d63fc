#include <algorithm>

#include "motley/kernels/cpu/expert_block.h"
#include "motley/kernels/cpu/outer.h"
#include "tests/kernels/support.h"

namespace motley::kernels::testing {
namespace {

class ProductsTest : public KernelsTest {};

double bias_at(const Data& bias, bool has_bias, int64_t i) { return has_bias ? bias[i] : 0.0; }

// Every block of rows of an expert against every width: panels, tiles, dot products, tails.
TEST_P(ProductsTest, Linear) {
  struct Shape {
    int num_rows;
    int64_t depth, columns;
  };
  const Shape shapes[] = {{1, 1, 1},      {1, 2049, 5},  {3, 37, 50},   {8, 64, 48},    {9, 64, 7},
                          {17, 130, 97},  {33, 5, 13},   {48, 33, 48},  {64, 2051, 11}, {64, 1, 6},
                          {50, 4099, 3},  {2, 7, 3},     {5, 515, 49},  {6, 96, 4},     {7, 31, 9},
                          {4, 1024, 17},  {72, 70, 130}, {97, 33, 100}, {264, 40, 33},  {256, 64, 5},
                          {200, 1100, 20}};
  for (const auto& [num_rows, depth, columns] : shapes) {
    if (num_rows > block_rows(kernels(), type()) + spare_rows(kernels(), type())) continue;
    for (const bool has_bias : {false, true}) {
      const Data x(type(), 2 * num_rows * depth, 11);
      const Data w(type(), columns * depth, 12);
      const Data bias(type(), columns, 13);
      std::vector<int32_t> assignment;  // tokens of a top-2 plan, in descending order
      for (int i = 0; i < num_rows; ++i) assignment.push_back(2 * (2 * num_rows - 1 - i) + i % 2);
      const RowBlock block{{x.at(0), type(), depth, assignment.data(), 2}, 0, num_rows, depth};
      std::vector<float> input(block_input_bytes(kernels(), type(), depth, num_rows) / 4);
      std::vector<float> scratch(block_scratch_bytes() / 4);
      Data y(type(), num_rows * columns, 14);
      linear_columns(kernels(), pack_block(kernels(), block, input.data()),
                     {w.at(0), type(), depth, has_bias ? bias.at(0) : nullptr}, 0, columns, type(),
                     y.rows(num_rows, columns).data(), scratch.data());
      for (int row = 0; row < num_rows; ++row) {
        for (int64_t n = 0; n < columns; ++n) {
          double expected = bias_at(bias, has_bias, n);
          for (int64_t k = 0; k < depth; ++k) {
            expected += x[(2 * num_rows - 1 - row) * depth + k] * w[n * depth + k];
          }
          ASSERT_NEAR(y[row * columns + n], expected, tolerance(type(), expected, depth))
              << num_rows << " x " << depth << " x " << columns << " at " << row << ", " << n;
        }
      }
    }
  }
}

// Columns may be computed in any parts, with the same bits.
TEST_P(ProductsTest, LinearInPartsIsBitwiseEqual) {
  constexpr int64_t kDepth = 300, kColumns = 150;
  for (const int num_rows : {5, 40}) {
    const Data x(type(), num_rows * kDepth, 21);
    const Data w(type(), kColumns * kDepth, 22);
    const RowBlock block{{x.at(0), type(), kDepth}, 0, num_rows, kDepth};
    std::vector<float> input(block_input_bytes(kernels(), type(), kDepth, num_rows) / 4);
    std::vector<float> scratch(block_scratch_bytes() / 4);
    const BlockInput packed = pack_block(kernels(), block, input.data());
    const LinearWeight weight{w.at(0), type(), kDepth};
    Data whole(type(), num_rows * kColumns), parts(type(), num_rows * kColumns);
    linear_columns(kernels(), packed, weight, 0, kColumns, type(), whole.rows(num_rows, kColumns).data(),
                   scratch.data());
    for (int64_t first = 0; first < kColumns; first += 31) {
      linear_columns(kernels(), packed, weight, first, std::min(kColumns, first + 31), type(),
                     parts.rows(num_rows, kColumns).data(), scratch.data());
    }
    for (int64_t i = 0; i < num_rows * kColumns; ++i)
      ASSERT_EQ(whole[i], parts[i]) << num_rows << " at " << i;
  }
}

TEST_P(ProductsTest, RowsTimesMatrixAsItLies) {
  for (const int64_t num_rows : {1, 3, 17, 65, 511}) {
    for (const int count : {1, 24, 64}) {
      constexpr int64_t kDepth = 77;
      const int64_t width = count + 5;
      const Data a(type(), num_rows * kDepth, 31);
      const Data w(type(), kDepth * width, 32);
      std::vector<std::byte> memory(panel_bytes(panel_type(), kDepth, vectors_for(count)));
      const Panel panel = kernels().panel(panel_type(), memory.data(), kDepth, vectors_for(count));
      pack_matrix(kernels(), type(), w.at(0), width, 5, count, panel);
      std::vector<float> c(num_rows * panel.lanes(), 1.0f);
      std::vector<std::byte> scratch(kMultiplyScratch);
      for (const bool accumulate : {false, true}) {
        multiply_rows(kernels(), panel, type(), a.rows(num_rows, kDepth).data(), num_rows, c.data(),
                      accumulate, scratch.data());
        for (int64_t i = 0; i < num_rows; ++i) {
          for (int n = 0; n < count; ++n) {
            double expected = 0;
            for (int64_t k = 0; k < kDepth; ++k) expected += a[i * kDepth + k] * w[k * width + 5 + n];
            if (accumulate) expected *= 2;
            ASSERT_NEAR(c[i * panel.lanes() + n], expected, tolerance(DType::kFloat32, expected, kDepth))
                << num_rows << " rows, " << count << " columns";
          }
        }
      }
    }
  }
}

TEST_P(ProductsTest, Outer) {
  for (const DType out_type : {DType::kFloat32, type()}) {
    for (const int64_t num_rows : {0, 1, 3, 17, 65, 511, 1025}) {
      for (const bool accumulate : {false, true}) {
        constexpr int64_t kM = 19, kJ = 83;  // the block leaves out the first row and the last two columns
        const Data a(type(), (num_rows + 1) * kM, 41);
        const Data b(type(), (num_rows + 1) * kJ, 42);
        Data out(out_type, kM * kJ, 43);
        const Data before = out;
        std::vector<std::byte> scratch(outer_scratch_bytes());
        outer_block(kernels(),
                    {{a.at(0), type(), kM},
                     {b.at(0), type(), kJ},
                     1,
                     num_rows + 1,
                     1,
                     kM - 1,
                     0,
                     kJ - 2,
                     out_type,
                     out.at(0),
                     kJ,
                     accumulate},
                    scratch.data());
        for (int64_t m = 0; m < kM; ++m) {
          for (int64_t j = 0; j < kJ; ++j) {
            const bool inside = m >= 1 && j < kJ - 2;
            double expected = accumulate || !inside ? before[m * kJ + j] : 0.0;
            for (int64_t r = 1; inside && r <= num_rows; ++r) expected += a[r * kM + m] * b[r * kJ + j];
            ASSERT_NEAR(out[m * kJ + j], expected, tolerance(out_type, expected, num_rows))
                << num_rows << " rows at " << m << ", " << j;
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, ProductsTest, ::testing::ValuesIn(cases()), case_name);

}  // namespace
}  // namespace motley::kernels::testing
