// Which products read a copy, by family and width.
#include "tests/kernels_cuda/tests.h"

namespace motley::cuda::test {

void test_product_tiles(Report& report) {
  report.name = "product tiles";
  const auto rows_come = [](Family family, Product product, int expert_width) {
    const ExpertShape shape{4096, 8, 64, 64, 2048, expert_width, 32768};
    return product_tiles(family, shape, Activation{}, product, 227 << 10).rows_come;
  };
  const auto sm90 = [&](Product product, int expert_width) {
    return rows_come(Family::kSm90, product, expert_width);
  };
  using P = Product;
  for (const P product : {P::kUp, P::kDhidden})
    report.check(sm90(product, 768) == RowsCome::kGathered, "gathered");
  for (const P product : {P::kDown, P::kDx})
    report.check(sm90(product, 768) == RowsCome::kInOrder, "in order");
  report.check(sm90(P::kUp, 1024) == RowsCome::kCopied, "up beside wide experts");
  for (const P product : {P::kDhiddenAndDdown, P::kDdown, P::kDgateUp}) {
    report.check(sm90(product, 768) == RowsCome::kCopied, "copied");
    report.check(sm90(product, 256) == RowsCome::kGathered, "narrow");
    report.check(rows_come(Family::kSm80, product, 768) == RowsCome::kGathered, "sm80");
  }
  report.check(
      sm90(P::kDhiddenAndDdown, 512) == RowsCome::kCopied && sm90(P::kDdown, 512) == RowsCome::kGathered,
      "two share a copy sooner than one has its own");
}

}  // namespace motley::cuda::test
