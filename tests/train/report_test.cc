#include "motley/train/report.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "motley/base/error.h"
#include "tests/train/run_place.h"

namespace motley {
namespace {

using nlohmann::json;

void write_run(const RunPlace& place, int lines) {
  place.write("run/config.json", R"({"data": {"path": "a.txt"}, "train": {"steps": 5}})");
  std::string text = R"({"kind": "run", "step": 0, "parameters": 10, "num_experts": [2], "threads": 2})"
                     "\n";
  for (int i = 1; i <= lines; ++i)
    text += json({{"kind", "train"}, {"step", i}, {"layers", {4}}}).dump() + "\n";
  text += R"({"kind": "sample", "step": 5, "prompt": "a", "text": "</script><b>"})"
          "\n";
  text += R"({"kind": "train", "st)";
  place.write("run/metrics.jsonl", text);
}

TEST(RunReport, ThinsLongRunsEvenlyAndKeepsTheLastLine) {
  const RunPlace place;
  write_run(place, 1001);
  const json data = RunReport(place / "run", 300).data();
  const json& train = data["train"];
  ASSERT_GE(train.size(), 150u);
  ASSERT_LE(train.size(), 300u);
  EXPECT_EQ(train.front()["step"], 1);
  EXPECT_EQ(train.back()["step"], 1001);
  for (size_t i = 2; i + 1 < train.size(); ++i) {
    EXPECT_EQ(train[i]["step"].get<int>() - train[i - 1]["step"].get<int>(),
              train[1]["step"].get<int>() - train[0]["step"].get<int>());
  }
  EXPECT_EQ(data["layers"], json({4}));
  EXPECT_EQ(data["parameters"], 10);
}

TEST(RunReport, ReadsWhatWasWrittenSinceTheLastTime) {
  const RunPlace place;
  write_run(place, 3);
  RunReport report(place / "run");
  EXPECT_EQ(report.data()["train"].size(), 3u);
  // The line that was cut short is now whole, and lines that were read are not read again.
  std::string text = read_text(place / "run/metrics.jsonl");
  std::fill(text.begin(), text.begin() + static_cast<int64_t>(text.rfind('\n')), ' ');
  place.write("run/metrics.jsonl", text + "ep\": 4, \"layers\": [5]}\n");
  const json data = report.data();
  EXPECT_EQ(data["train"].size(), 4u);
  EXPECT_EQ(data["layers"], json({5}));
}

TEST(RunReport, IsOneFileThatNeedsNoNetwork) {
  const RunPlace place;
  write_run(place, 3);
  RunReport(place / "run").write();
  const std::string page = read_text(place.path() / "run/report.html");
  EXPECT_EQ(page.find("src="), std::string::npos);
  EXPECT_EQ(page.find("@REPORT"), std::string::npos);
  // Text of a sample cannot end the script that carries it.
  EXPECT_EQ(page.find("</script><b>"), std::string::npos);
  EXPECT_NE(page.find("\\u003c/script>"), std::string::npos);
}

TEST(RunReport, NamesAMissingRun) { EXPECT_THROW(RunReport("/no/such/run").write(), UserError); }

}  // namespace
}  // namespace motley
