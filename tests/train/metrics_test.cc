#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "motley/base/error.h"
#include "motley/train/metrics_log.h"
#include "motley/train/metrics_window.h"
#include "tests/train/run_place.h"

namespace motley {
namespace {

using nlohmann::json;

Routing routing(std::vector<double> load, double dropped, double balance) {
  Routing result;
  result.load = at::tensor(load, at::kFloat);
  result.dropped = at::tensor(dropped, at::kFloat);
  result.losses.push_back({"balance", at::tensor(balance, at::kFloat)});
  return result;
}

MetricsWindow two_passes() {
  MetricsWindow window({2, 3});
  // Ten tokens, two choices each; slots from num_experts on are zero-computation experts.
  window.add_pass(2.0, {routing({8, 4, 8}, 0, 0.5), routing({6, 6, 6, 0}, 2, 0.25)}, {1, 3}, 10);
  window.add_pass(1.0, {routing({8, 8, 4}, 0, 0.5), routing({0, 0, 20, 0}, 0, 0.25)}, {1, 3}, 10);
  window.add_step(3.0, 0.5);
  return window;
}

TEST(MetricsWindow, AveragesOverPassesAndTokens) {
  const MetricsWindow window = two_passes();
  const json metrics = window.metrics();
  EXPECT_DOUBLE_EQ(metrics["loss"], 1.5);
  EXPECT_DOUBLE_EQ(metrics["losses"]["balance"], 0.75);  // summed over layers
  EXPECT_DOUBLE_EQ(metrics["grad_norm"], 3.0);
  EXPECT_DOUBLE_EQ(metrics["tokens_per_second"], 40.0);
  EXPECT_EQ(metrics["layers"], json({1, 3}));
  EXPECT_DOUBLE_EQ(metrics["load"][0][0], 0.8);
  EXPECT_DOUBLE_EQ(metrics["ffn_experts_per_token"][0], 1.4);
  EXPECT_DOUBLE_EQ(metrics["ffn_experts_per_token"][1], 1.9);
  EXPECT_DOUBLE_EQ(metrics["dropped"][1], 0.1);
  EXPECT_DOUBLE_EQ(window.ffn_experts_per_token(), 1.65);
  EXPECT_DOUBLE_EQ(window.worst_balance(), 26.0 * 3 / 38);
}

TEST(MetricsWindow, StateRoundTripsThroughText) {
  const MetricsWindow window = two_passes();
  MetricsWindow restored({2, 3});
  restored.load(json::parse(window.state().dump()));
  EXPECT_EQ(restored.state(), window.state());
  EXPECT_EQ(restored.metrics(), window.metrics());
  restored.clear();
  EXPECT_EQ(restored.steps(), 0);
  EXPECT_EQ(restored.ffn_experts_per_token(), 0);
}

TEST(MetricsLog, CutsOffWhatCameAfterTheCheckpoint) {
  const RunPlace place;
  const auto path = place.path() / "metrics.jsonl";
  int64_t bytes = 0;
  {
    MetricsLog log(path, 0);
    log.write({{"step", 1}});
    bytes = log.sync();
    log.write({{"step", 2}});
  }
  place.write("metrics.jsonl", read_text(path) + "{\"step\": 3, \"lo");
  MetricsLog log(path, bytes);
  log.write({{"step", 2}, {"again", true}});
  EXPECT_EQ(read_text(path), "{\"step\":1}\n{\"again\":true,\"step\":2}\n");
}

TEST(MetricsLog, GoesOnBehindTheLastWholeLineOfAFileThatLostBytes) {
  const RunPlace place;
  const auto path = place.write("metrics.jsonl", "{\"step\":1}\n{\"step\":2}\n{\"st");
  {
    MetricsLog log(path, 1000);
    EXPECT_FALSE(log.empty());
    log.write({{"step", 3}});
  }
  EXPECT_EQ(read_text(path), "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n");
  place.write("metrics.jsonl", "{\"kind\":\"ru");
  EXPECT_TRUE(MetricsLog(path, 1000).empty());
  EXPECT_EQ(read_text(path), "");
  EXPECT_TRUE(MetricsLog(place / "missing.jsonl", 1000).empty());
}

TEST(MetricsLog, KeepsLinesValidWhateverTextHolds) {
  const RunPlace place;
  MetricsLog(place / "metrics.jsonl", 0).write({{"text", "a\xff\n"}});
  EXPECT_EQ(json::parse(read_text(place / "metrics.jsonl"))["text"], "a\ufffd\n");
}

TEST(MetricsLog, NamesAFileThatCannotBeWritten) {
  EXPECT_THROW(MetricsLog("/no/such/folder/metrics.jsonl", 0), UserError);
}

}  // namespace
}  // namespace motley
