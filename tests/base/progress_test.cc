#include "motley/base/progress.h"

#include <gtest/gtest.h>

#include <sstream>

namespace motley {
namespace {

// Time moves only when the test says so.
struct Scene {
  std::ostringstream out;
  double now = 100;
  ProgressPlace place(bool terminal, size_t columns = 0) {
    return {&out, terminal, columns, [this] { return now; }};
  }
};

ProgressOptions steps(int64_t total) { return {.what = "train", .unit = "step", .total = total}; }

TEST(Progress, LogGetsPlainLinesAtIntervals) {
  Scene scene;
  Progress progress(steps(100), scene.place(false));
  scene.now += 1;
  progress.update(2, "loss 5.0");
  for (int i = 0; i < 9; ++i) {
    scene.now += 1;
    progress.update(4 + 2 * i, "loss 4.0");
  }
  EXPECT_EQ(scene.out.str(), "train 2/100 steps, 2.00 steps/s, 49.0 s left, loss 5.0\n");
  scene.now += 1;
  progress.update(22, "loss 3.0");
  EXPECT_EQ(scene.out.str(),
            "train 2/100 steps, 2.00 steps/s, 49.0 s left, loss 5.0\n"
            "train 22/100 steps, 2.00 steps/s, 39.0 s left, loss 3.0\n");
}

TEST(Progress, TerminalLineIsRewrittenInPlaceAndCut) {
  Scene scene;
  {
    Progress progress(steps(10), scene.place(true, 21));
    scene.now += 1;
    progress.update(1);
    scene.now += 1;
    progress.update(2, "a detail that does not fit");
  }
  EXPECT_EQ(scene.out.str(),
            "\r\033[Ktrain 1/10 steps, 1."
            "\r\033[Ktrain 2/10 steps, 1.\n");
}

TEST(Progress, TimeLeftLeavesOutWhatAnEarlierRunDid) {
  Scene scene;
  ProgressOptions options = steps(100);
  options.already = 50;
  Progress progress(options, scene.place(false));
  scene.now += 10;
  progress.update(60);
  EXPECT_EQ(scene.out.str(), "train 60/100 steps, 1.00 steps/s, 40.0 s left\n");
}

TEST(Progress, RateFollowsAChangeOfSpeed) {
  Scene scene;
  Progress progress({.what = "read", .unit = "file"}, scene.place(false));
  int64_t done = 0;
  for (int i = 0; i < 10; ++i, scene.now += 10) progress.update(done += 100);
  // The number of "read 1000 files, 10.4 files/s" in the last line.
  const auto rate = [&] {
    const std::string text = scene.out.str();
    return std::stod(text.substr(text.rfind(", ") + 2));
  };
  EXPECT_NEAR(rate(), 10, 1);
  for (int i = 0; i < 20; ++i, scene.now += 10) progress.update(done += 10);
  EXPECT_NEAR(rate(), 1, 0.1);
}

TEST(Progress, DueSaysWhetherALineWouldBeWritten) {
  Scene scene;
  Progress progress(steps(10), scene.place(false));
  EXPECT_TRUE(progress.due());
  progress.update(1);
  EXPECT_FALSE(progress.due());
  scene.now += 10;
  EXPECT_TRUE(progress.due());
}

TEST(Progress, FinishGivesTheWholeTime) {
  Scene scene;
  Progress progress(steps(10), scene.place(false));
  scene.now += 5;
  progress.update(10);
  scene.out.str("");
  progress.finish("loss 1.0");
  progress.finish();
  EXPECT_EQ(scene.out.str(), "train 10 steps in 5.0 s, 2.00 steps/s, loss 1.0\n");
  EXPECT_FALSE(progress.due());
}

}  // namespace
}  // namespace motley
