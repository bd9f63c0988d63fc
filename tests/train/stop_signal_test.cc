#include "motley/train/stop_signal.h"

#include <gtest/gtest.h>

#include <csignal>

namespace motley {
namespace {

TEST(StopSignal, NotesTheFirstSignal) {
  const StopSignal stop;
  EXPECT_EQ(stop.received(), 0);
  std::raise(SIGTERM);
  EXPECT_EQ(stop.received(), SIGTERM);
}

TEST(StopSignalDeathTest, LetsASecondSignalEndTheProcess) {
  EXPECT_EXIT(
      {
        const StopSignal stop;
        std::raise(SIGINT);
        std::raise(SIGINT);
      },
      testing::KilledBySignal(SIGINT), "");
}

}  // namespace
}  // namespace motley
