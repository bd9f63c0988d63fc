// Norms and rotary embedding on a GPU against the CPU.
#include <ATen/ops/arange.h>

#include "motley/nn/rms_norm.h"
#include "motley/nn/rotary.h"
#include "tests/support/gpu.h"
#include "tests/support/gradients.h"
#include "tests/support/precision.h"

namespace motley::test {
namespace {

using NormOnGpu = OnGpu;

TEST_F(NormOnGpu, RmsNormAgreesWithTheCpu) {
  for (const auto& precision : cpu_precisions()) {
    for (const int64_t width : {16, 37, 1024}) {
      SCOPED_TRACE(precision.name + " width " + std::to_string(width));
      const Tensors inputs = {random_values({50, width}, precision.dtype, 1),
                              random_values({width}, precision.dtype, 2)};
      const Tensors cpu = {leaf(inputs[0]), leaf(inputs[1])};
      const Tensors gpu = {leaf(inputs[0].cuda()), leaf(inputs[1].cuda())};
      const auto expected = rms_norm(cpu[0], cpu[1], 1e-6), found = rms_norm(gpu[0], gpu[1], 1e-6);
      expect_close("y", found, expected, precision.tolerance);
      const auto dy = random_values(expected.sizes(), precision.dtype, 3);
      const auto wanted = gradients(expected, cpu, dy), got = gradients(found, gpu, dy.cuda());
      expect_close("dx", got[0], wanted[0], precision.tolerance);
      expect_close("dweight", got[1], wanted[1], precision.tolerance);
    }
  }
}

TEST_F(NormOnGpu, RotaryAgreesWithTheCpu) {
  for (const auto& precision : cpu_precisions()) {
    SCOPED_TRACE(precision.name);
    const RotaryTable cpu_table(100, 24, 10000.0);
    RotaryTable gpu_table(100, 24, 10000.0);
    gpu_table.to(at::kCUDA);
    const auto x = random_values({60, 3, 24}, precision.dtype, 1);
    const auto positions = at::arange(60, at::kLong).mul(7).remainder(100);
    const auto cpu = leaf(x), gpu = leaf(x.cuda());
    const auto expected = cpu_table.rotate(cpu, positions), found = gpu_table.rotate(gpu, positions.cuda());
    expect_close("y", found, expected, precision.tolerance);
    const auto dy = random_values(x.sizes(), precision.dtype, 3);
    expect_close("dx", gradients(found, {gpu}, dy.cuda())[0], gradients(expected, {cpu}, dy)[0],
                 precision.tolerance);
  }
}

}  // namespace
}  // namespace motley::test
