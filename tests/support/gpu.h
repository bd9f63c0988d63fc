// Tests that need a GPU.
#pragma once

#include <ATen/Context.h>
#include <gtest/gtest.h>

#include "tests/support/expert_problem.h"

namespace motley::test {

// A fixture whose tests are skipped where there is no GPU.
class OnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!at::globalContext().hasCUDA()) {
      GTEST_SKIP() << "no GPU: this build or this machine has none";
    }
  }
};

// The problem's tensors on a GPU, with a plan that is made there.
ExpertProblem on_gpu(const ExpertProblem& problem);

}  // namespace motley::test
