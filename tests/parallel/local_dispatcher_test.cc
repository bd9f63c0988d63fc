#include "motley/parallel/local_dispatcher.h"

#include <ATen/ops/full.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

namespace motley {
namespace {

TEST(LocalDispatcher, HandsTokensOnWithoutACopy) {
  LocalDispatcher dispatcher;
  const at::Tensor x = at::randn({3, 4}), slots = at::zeros({3, 2}, at::kInt), weights = at::randn({3, 2});
  const auto exchange = dispatcher.start_dispatch(x, slots, weights);
  const DispatchedTokens tokens = dispatcher.finish_dispatch(*exchange);
  EXPECT_TRUE(tokens.x.is_same(x));
  EXPECT_TRUE(tokens.slots.is_same(slots));
  EXPECT_TRUE(tokens.weights.is_same(weights));
  EXPECT_TRUE(dispatcher.keeps_tokens());

  const at::Tensor partial = at::randn({3, 4});
  dispatcher.start_combine(*exchange, partial);
  EXPECT_TRUE(dispatcher.finish_combine(*exchange, {}).is_same(partial));
}

// 256 + 0.75 + 0.75 is 257.5, in bf16 258; rounded at each step it would stay at 256.
TEST(LocalDispatcher, AddsInFp32AndRoundsOnce) {
  LocalDispatcher dispatcher;
  EXPECT_EQ(dispatcher.partial_dtype(at::kBFloat16, true), at::kFloat);
  EXPECT_EQ(dispatcher.partial_dtype(at::kBFloat16, false), at::kBFloat16);
  const at::Tensor x = at::zeros({1, 2}, at::kBFloat16);
  const auto exchange = dispatcher.start_dispatch(x, at::zeros({1, 1}, at::kInt), at::zeros({1, 1}));
  dispatcher.finish_dispatch(*exchange);
  dispatcher.start_combine(*exchange, at::full({1, 2}, 256.75));
  const at::Tensor y = dispatcher.finish_combine(*exchange, at::full({1, 2}, 0.75));
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(y.equal(at::full({1, 2}, 258.0, at::kBFloat16)));
}

TEST(LocalDispatcher, GradientsPassThrough) {
  LocalDispatcher dispatcher;
  at::Tensor x = at::randn({3, 4}).requires_grad_(true), local = at::randn({3, 4}).requires_grad_(true);
  const auto exchange = dispatcher.start_dispatch(x, at::zeros({3, 1}, at::kInt), at::zeros({3, 1}));
  dispatcher.start_combine(*exchange, dispatcher.finish_dispatch(*exchange).x.mul(2));
  dispatcher.finish_combine(*exchange, local).sum().backward();
  EXPECT_TRUE(x.grad().equal(at::full({3, 4}, 2.0f)));
  EXPECT_TRUE(local.grad().equal(at::full({3, 4}, 1.0f)));
}

TEST(LocalDispatcher, NamesWhatIsWrong) {
  LocalDispatcher dispatcher;
  const at::Tensor x = at::zeros({3, 4});
  EXPECT_THROW(dispatcher.start_dispatch(x, at::zeros({2, 1}, at::kInt), at::zeros({2, 1})), c10::Error);
  EXPECT_THROW(dispatcher.start_dispatch(x, at::zeros({3, 1}, at::kInt), at::zeros({3, 2})), c10::Error);
  const auto exchange = dispatcher.start_dispatch(x, at::zeros({3, 1}, at::kInt), at::zeros({3, 1}));
  EXPECT_THROW(dispatcher.finish_combine(*exchange, {}), c10::Error);
  dispatcher.start_combine(*exchange, x);
  EXPECT_THROW(dispatcher.finish_combine(*exchange, at::zeros({3, 5})), c10::Error);
}

}  // namespace
}  // namespace motley
