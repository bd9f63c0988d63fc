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

TEST(StopSignalDeathTest, LetsASecondSignalOfTheOtherKindEndTheProcess) {
  EXPECT_EXIT(
      {
        const StopSignal stop;
        std::raise(SIGTERM);
        std::raise(SIGINT);
      },
      testing::KilledBySignal(SIGINT), "");
}

TEST(StopSignal, LeavesWhatIsIgnoredIgnoredAndPutsEverythingBack) {
  const auto before = std::signal(SIGINT, SIG_IGN);
  {
    const StopSignal stop;
    std::raise(SIGINT);
    EXPECT_EQ(stop.received(), 0);
  }
  EXPECT_EQ(std::signal(SIGINT, before), SIG_IGN);
  const auto mine = [](int) {};
  const auto terminate = std::signal(SIGTERM, mine);
  { const StopSignal stop; }
  EXPECT_EQ(std::signal(SIGTERM, terminate), static_cast<void (*)(int)>(mine));
}

}  // namespace
}  // namespace motley
