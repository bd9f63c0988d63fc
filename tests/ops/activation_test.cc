#include "motley/ops/activation.h"

#include <gtest/gtest.h>

#include "tests/support/precision.h"

namespace motley::test {
namespace {

TEST(Activation, KnowsHuggingFaceNames) {
  EXPECT_EQ(parse_activation("silu", true).kind, ActivationKind::kSwiGlu);
  EXPECT_EQ(parse_activation("swiglu", true).kind, ActivationKind::kSwiGlu);
  EXPECT_EQ(parse_activation("gelu", true).kind, ActivationKind::kGeGlu);
  EXPECT_EQ(parse_activation("silu", false).kind, ActivationKind::kSilu);
  EXPECT_EQ(parse_activation("gelu", false).kind, ActivationKind::kGelu);
  EXPECT_EQ(parse_activation("relu", false).kind, ActivationKind::kRelu);
  EXPECT_EQ(parse_activation("clamped_swiglu", true).kind, ActivationKind::kClampedSwiGlu);
}

TEST(Activation, GatedKindsHaveTwiceTheRows) {
  EXPECT_EQ(parse_activation("silu", true).hidden_rows(10), 20);
  EXPECT_EQ(parse_activation("silu", false).hidden_rows(10), 10);
}

TEST(Activation, ListsTheNamesItKnows) {
  EXPECT_EQ(error_of([] { parse_activation("tanh", false); }),
            "[activation] expected one of silu, swish, gelu, relu (not gated experts), got 'tanh'");
  EXPECT_EQ(error_of([] { parse_activation("relu", true); }),
            "[activation] expected one of silu, swish, gelu, swiglu, geglu, clamped_swiglu (gated experts), "
            "got 'relu'");
}

}  // namespace
}  // namespace motley::test
