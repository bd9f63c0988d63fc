#include <set>

#include "motley/kernels/cpu/multiply.h"
#include "tests/kernels/support.h"

namespace motley::kernels::testing {
namespace {

class DotRowsTest : public KernelsTest {
 protected:
  // [num_rows, columns]: a row more than is asked for between the rows of the result, which stays as it is.
  std::vector<float> product(const Data& x, int first, int num_rows, const Data& w, int64_t columns,
                             int64_t depth, bool fetch) const {
    const auto rows = x.rows(first + num_rows, depth);
    std::vector<float> out(num_rows * (columns + 1), -1.0f);
    kernels().dot_rows(type(), rows.data() + first, num_rows,
                       {w.at(0), depth, columns, depth, out.data(), columns + 1, fetch ? x.at(0) : nullptr});
    return out;
  }
};

// Rows of a weight that share a page are read apart from each other, and what is left over singly: columns
// around such groups. Each sum has the same bits whatever rows are beside it.
TEST_P(DotRowsTest, EveryNumberOfRowsAndColumns) {
  for (const int64_t depth : {0, 1, 31, 130, 500, 2051}) {
    for (const int64_t columns : {1, 2, 11, 12, 25, 49, 97}) {
      const Data x(type(), kMostDotRows * depth, 31), w(type(), columns * depth, 32);
      std::vector<std::vector<float>> alone;
      for (int row = 0; row < kMostDotRows; ++row) {
        alone.push_back(product(x, row, 1, w, columns, depth, true));
        ASSERT_EQ(alone.back()[columns], -1.0f);
        for (int64_t n = 0; n < columns; ++n) {
          double expected = 0;
          for (int64_t k = 0; k < depth; ++k) expected += x[row * depth + k] * w[n * depth + k];
          ASSERT_NEAR(alone[row][n], expected, tolerance(DType::kFloat32, expected, depth))
              << depth << " x " << columns << " at " << row << ", " << n;
        }
      }
      for (int num_rows = 2; num_rows <= kMostDotRows; ++num_rows) {
        const auto together = product(x, 0, num_rows, w, columns, depth, false);
        for (int row = 0; row < num_rows; ++row) {
          for (int64_t n = 0; n <= columns; ++n) {
            ASSERT_EQ(together[row * (columns + 1) + n], alone[row][n])
                << depth << " x " << columns << ", row " << row << " of " << num_rows << ", " << n;
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllFamilies, DotRowsTest, ::testing::ValuesIn(cases()), case_name);

// Products that share the fetching of a weight fetch each of its lines once.
TEST(Upcoming, ProductsShareTheLines) {
  constexpr int kRows = 32, kProducts = 3, kPerStep = 11;
  constexpr int64_t kSteps = 5, kLines = kProducts * kPerStep * kSteps;
  std::vector<std::byte> weight(64 * kLines);
  Upcoming upcoming(weight.data(), 64 * kLines, kProducts);
  std::set<const void*> fetched;
  const void* next[kMaxTileRows];
  int64_t step_bytes = 0;
  for (int product = 0; product < kProducts; ++product) {
    ASSERT_EQ(upcoming.take(kRows, kSteps, next, &step_bytes), kPerStep);
    for (int64_t step = 0; step < kSteps; ++step) {
      for (int i = 0; i < kPerStep; ++i) {
        const auto* line = static_cast<const std::byte*>(next[i]) + step * step_bytes;
        EXPECT_TRUE(line >= weight.data() && line < weight.data() + weight.size());
        EXPECT_TRUE(fetched.insert(line).second);
      }
    }
  }
  EXPECT_EQ(static_cast<int64_t>(fetched.size()), kLines);
  EXPECT_EQ(upcoming.take(kRows, kSteps, next, &step_bytes), 0);
}

}  // namespace
}  // namespace motley::kernels::testing
