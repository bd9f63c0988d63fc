#include "motley/train/run_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <atomic>
#include <thread>

#include "motley/base/error.h"
#include "motley/train/metrics_window.h"
#include "motley/train/run_config.h"
#include "tests/train/run_place.h"

namespace motley {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

json config_with_seed(int seed) {
  return to_json(parse_run_config(
      {{"model", {{"model_type", "motley"}}},
       {"data", {{"path", "a.txt"}, {"sequence_length", 16}}},
       {"train", {{"steps", 10}, {"batch_size", 2}, {"learning_rate", 1e-3}, {"seed", seed}}}},
      "c.json"));
}

const json kConfig = config_with_seed(1);

json listed(const std::string& content) {
  return {
      {"bytes", content.size()},
      {"crc32", crc32(0, reinterpret_cast<const Bytef*>(content.data()), static_cast<uInt>(content.size()))}};
}

// As the program writes it: the checksum of everything else.
void write_signed(const RunPlace& place, const std::string& name, json state) {
  state["crc32"] = listed(state.dump())["crc32"];
  place.write(name, state.dump(2));
}

json state_of(int64_t step, const json& config) {
  const json window = MetricsWindow({}).state();
  return {{"format", "motley checkpoint 2"},
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
          {"window", window},
          {"data", json::object()},
          {"configuration", config},
          {"files",
           {{"model.safetensors", listed("weights")},
            {"optimizer.safetensors", listed("")},
            {"config.json", listed("")},
            {"tokenizer.json", listed("")}}}};
}

std::string folder_of(int64_t step) { return "run/checkpoints/step_" + std::to_string(step) + "/"; }

// A checkpoint's state with files that are no model.
void write_state(const RunPlace& place, int64_t step, const json& config = kConfig,
                 const std::string& weights = "weights") {
  place.write(folder_of(step) + "model.safetensors", weights);
  for (const char* name : {"optimizer.safetensors", "config.json", "tokenizer.json"}) {
    place.write(folder_of(step) + name, "");
  }
  write_signed(place, folder_of(step) + "trainer.json", state_of(step, config));
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
  const std::string error = user_error([&] { RunFolder(place.path() / "run").check(config_with_seed(2)); });
  EXPECT_NE(error.find("train.seed is 2"), std::string::npos) << error;
  EXPECT_NE(error.find("found 1"), std::string::npos) << error;
}

TEST(RunFolder, RefusesAFolderThatIsNoRun) {
  const RunPlace place;
  place.write("run/thesis.tex", "precious");
  EXPECT_NE(user_error([&] { RunFolder(place.path() / "run").begin(kConfig); }).find("thesis.tex"),
            std::string::npos);
  const auto file = place.write("file", "");
  EXPECT_NE(user_error([&] { RunFolder(file).begin(kConfig); }).find("a file"), std::string::npos);
}

TEST(RunFolder, KeepsASecondProcessOut) {
  const RunPlace place;
  RunFolder first(place.path() / "run"), second(place.path() / "run");
  first.begin(kConfig);
  EXPECT_NE(user_error([&] { second.begin(kConfig); }).find("another process"), std::string::npos);
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
      try {
        folder.begin(kConfig);
        ++begun;
      } catch (const UserError&) {  // the other was faster
      }
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
  write_state(place, 4, config_with_seed(2));                // another run
  place.write("run/checkpoints/step_5/trainer.json", "{}");  // another program
  place.write("run/checkpoints/step_6/model.safetensors", "weights");
  RunFolder folder(place.path() / "run");
  EXPECT_EQ(folder.newest_checkpoint(kConfig)->step, 1);
  // They are left to the user, also when old checkpoints go.
  folder.prune(1, 1, std::nullopt);
  EXPECT_EQ(folder.checkpoint_steps(), (std::vector<int64_t>{1, 2, 3, 4, 5, 6}));
}

TEST(RunFolder, PassesOverATrainerFileThatIsNotWhatWasWritten) {
  const RunPlace place;
  write_state(place, 1);
  const auto change = [&](int64_t step, const std::function<void(json&)>& edit, bool sign) {
    write_state(place, step);
    json state = state_of(step, kConfig);
    edit(state);
    const std::string file = folder_of(step) + "trainer.json";
    sign ? write_signed(place, file, state) : (void)place.write(file, state.dump());
  };
  change(
      2, [](json& state) { state["tokens"] = 5; }, false);  // edited
  change(
      3, [](json& state) { state["window"] = nullptr; }, true);  // of another type
  change(
      4, [](json& state) { state.erase("best_loss"); }, true);  // incomplete
  change(
      5, [](json& state) { state["files"] = json::object(); }, true);
  change(
      6, [](json& state) { state["files"].erase("optimizer.safetensors"); }, true);
  RunFolder folder(place / "run");
  EXPECT_EQ(folder.newest_checkpoint(kConfig)->step, 1);
}

TEST(RunFolder, GoesOnWithARunThatIsOlderThanAKey) {
  const RunPlace place;
  json old = kConfig;
  old["train"].erase("max_minutes");
  old["train"].erase("log_every");
  place.write("run/config.json", old.dump());
  write_state(place, 3, old);
  RunFolder folder(place / "run");
  folder.begin(kConfig);
  EXPECT_EQ(folder.newest_checkpoint(kConfig)->step, 3);
}

TEST(RunFolder, PutsBackACheckpointThatDiedBetweenTwoRenames) {
  const RunPlace place;
  { RunFolder(place / "run").begin(kConfig); }
  write_state(place, 3);
  fs::rename(place.path() / folder_of(3), place / "run/checkpoints/step_3.old.unfinished");
  RunFolder folder(place / "run");
  folder.begin(kConfig);
  EXPECT_EQ(folder.newest_checkpoint(kConfig)->step, 3);
}

TEST(RunFolder, DiscardsARunThatNeverMadeAStep) {
  const RunPlace place;
  {
    RunFolder folder(place / "run");
    folder.begin(kConfig);
    folder.discard();
  }
  EXPECT_FALSE(fs::exists(place / "run"));
  fs::create_directory(place / "run");  // the user's own, empty
  RunFolder folder(place / "run");
  folder.begin(kConfig);
  folder.discard();
  EXPECT_TRUE(fs::is_empty(place / "run"));
  write_state(place, 2);
  RunFolder good(place / "run");
  place.write("run/config.json", kConfig.dump());
  good.begin(kConfig);
  good.discard();
  EXPECT_TRUE(fs::exists(place.path() / folder_of(2)));
}

TEST(RunFolder, TellsWhenNoCheckpointIsGood) {
  const RunPlace place;
  write_state(place, 2, kConfig, "weight");
  const std::string error = user_error([&] { RunFolder(place.path() / "run").newest_checkpoint(kConfig); });
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
