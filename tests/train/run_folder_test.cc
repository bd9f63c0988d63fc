#include "motley/train/run_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <atomic>
#include <thread>

#include "motley/base/error.h"
#include "tests/train/run_place.h"

namespace motley {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

const json kConfig = {{"train", {{"seed", 1}}}};

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

// A checkpoint's state without a model beside it.
void write_state(const RunPlace& place, int64_t step, const json& config = kConfig,
                 const std::string& weights = "weights") {
  const std::string folder = "run/checkpoints/step_" + std::to_string(step) + "/";
  place.write(folder + "model.safetensors", weights);
  const json state = {
      {"format", "motley checkpoint 1"},
      {"step", step},
      {"tokens", 0},
      {"seconds", 0.5},
      {"threads", 2},
      {"best_step", nullptr},
      {"best_loss", 0},
      {"validation_loss", 1.5},
      {"final_loss", nullptr},
      {"last_window", nullptr},
      {"settled", true},
      {"ended", false},
      {"metrics_bytes", 7},
      {"window", json::object()},
      {"data", json::object()},
      {"configuration", config},
      {"files",
       {{"model.safetensors",
         {{"bytes", 7}, {"crc32", crc32(0, reinterpret_cast<const Bytef*>("weights"), 7)}}}}}};
  place.write(folder + "trainer.json", state.dump());
}

TEST(RunFolder, WritesNothingUntilItBegins) {
  const RunPlace place;
  RunFolder folder(place.path() / "run");
  folder.check(kConfig);
  EXPECT_FALSE(fs::exists(place.path() / "run"));
  folder.begin(kConfig);
  EXPECT_EQ(json::parse(read_text(place.path() / "run/config.json")), kConfig);
}

TEST(RunFolder, NamesTheFirstKeyThatDiffers) {
  const RunPlace place;
  { RunFolder(place.path() / "run").begin(kConfig); }
  const std::string error = error_of([&] {
    RunFolder(place.path() / "run").check({{"train", {{"seed", 2}}}});
  });
  EXPECT_NE(error.find("train.seed is 2"), std::string::npos) << error;
  EXPECT_NE(error.find("found 1"), std::string::npos) << error;
}

TEST(RunFolder, RefusesAFolderThatIsNoRun) {
  const RunPlace place;
  place.write("run/thesis.tex", "precious");
  EXPECT_NE(error_of([&] { RunFolder(place.path() / "run").begin(kConfig); }).find("thesis.tex"),
            std::string::npos);
  const auto file = place.write("file", "");
  EXPECT_NE(error_of([&] { RunFolder(file).begin(kConfig); }).find("a file"), std::string::npos);
}

TEST(RunFolder, KeepsASecondProcessOut) {
  const RunPlace place;
  RunFolder first(place.path() / "run"), second(place.path() / "run");
  first.begin(kConfig);
  EXPECT_NE(error_of([&] { second.begin(kConfig); }).find("another process"), std::string::npos);
}

// Two starts of a new run at the same moment: one trains, the other leaves the folder of the first alone.
TEST(RunFolder, LeavesTheFolderToTheFasterOfTwo) {
  const RunPlace place;
  for (int round = 0; round < 100; ++round) {
    const fs::path path = place.path() / ("run" + std::to_string(round));
    RunFolder a(path), b(path);
    std::atomic<int> arrived = 0, begun = 0;
    const auto start = [&](RunFolder& folder) {
      for (++arrived; arrived < 2;) std::this_thread::yield();
      if (error_of([&] { folder.begin(kConfig); }).empty()) ++begun;
    };
    std::thread other([&] { start(a); });
    start(b);
    other.join();
    ASSERT_EQ(begun, 1) << "round " << round;
    ASSERT_TRUE(a.exists()) << "round " << round;
  }
}

TEST(RunFolder, RemovesUnfinishedWork) {
  const RunPlace place;
  { RunFolder(place.path() / "run").begin(kConfig); }
  place.write("run/checkpoints/step_3.unfinished/model.safetensors", "half");
  place.write("run/report.html.unfinished", "half");
  RunFolder(place.path() / "run").begin(kConfig);
  EXPECT_FALSE(fs::exists(place.path() / "run/checkpoints/step_3.unfinished"));
  EXPECT_FALSE(fs::exists(place.path() / "run/report.html.unfinished"));
}

TEST(RunFolder, GoesOnFromTheNewestCheckpoint) {
  const RunPlace place;
  EXPECT_FALSE(RunFolder(place.path() / "run").newest_checkpoint(kConfig).has_value());
  for (const int64_t step : {9, 10, 100}) write_state(place, step);
  const auto state = RunFolder(place.path() / "run").newest_checkpoint(kConfig);
  EXPECT_EQ(state->step, 100);
  EXPECT_EQ(state->validation_loss, 1.5);
  EXPECT_EQ(state->metrics_bytes, 7);
}

TEST(RunFolder, PassesOverTruncatedChangedAndForeignCheckpoints) {
  const RunPlace place;
  write_state(place, 1);
  write_state(place, 2, kConfig, "weight");                  // truncated
  write_state(place, 3, kConfig, "WEIGHTS");                 // changed
  write_state(place, 4, {{"train", {{"seed", 2}}}});         // another run
  place.write("run/checkpoints/step_5/trainer.json", "{}");  // another program
  place.write("run/checkpoints/step_6/model.safetensors", "weights");
  RunFolder folder(place.path() / "run");
  EXPECT_EQ(folder.newest_checkpoint(kConfig)->step, 1);
  // They are left to the user, also when old checkpoints go.
  folder.prune(1, 1, std::nullopt);
  EXPECT_EQ(folder.checkpoint_steps(), (std::vector<int64_t>{1, 2, 3, 4, 5, 6}));
}

TEST(RunFolder, TellsWhenNoCheckpointIsGood) {
  const RunPlace place;
  write_state(place, 2, kConfig, "weight");
  const std::string error = error_of([&] { RunFolder(place.path() / "run").newest_checkpoint(kConfig); });
  EXPECT_NE(error.find("step_2"), std::string::npos) << error;
  EXPECT_NE(error.find("7 bytes"), std::string::npos) << error;
}

TEST(RunFolder, KeepsTheLastAndTheBest) {
  const RunPlace place;
  for (const int64_t step : {1, 2, 3, 4, 5}) write_state(place, step);
  RunFolder(place.path() / "run").prune(5, 2, 2);
  EXPECT_EQ(RunFolder(place.path() / "run").checkpoint_steps(), (std::vector<int64_t>{2, 4, 5}));
}

}  // namespace
}  // namespace motley
