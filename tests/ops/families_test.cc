// Every family of CPU kernels that this processor can run gives what the reference gives: the tests of the
// expert operators run again, each time in a process that is told to use one family.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>

#include "motley/kernels/cpu/families.h"

namespace motley::test {
namespace {

TEST(Families, EachAvailableOnePassesTheExpertOperatorsTests) {
  int num_run = 0;
  for (const auto& family : kernels::cpu_families()) {
    if (!family.available) {
      continue;
    }
    SCOPED_TRACE(family.name);
    ++num_run;
    const std::string command = "OMP_WAIT_POLICY=passive MOTLEY_CPU_KERNELS=" + family.name +
                                " GTEST_FILTER='Expert*:TokenSum*:WeightSource*' GTEST_BRIEF=1 "
                                "$(readlink /proc/$PPID/exe)";
    const int status = std::system(command.c_str());
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << command;
  }
  EXPECT_GE(num_run, 1);
}

}  // namespace
}  // namespace motley::test
