#include "motley/train/report.h"

#include <gtest/gtest.h>

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

TEST(ReportData, ThinsLongRunsAndKeepsTheLastLine) {
  const RunPlace place;
  write_run(place, 1000);
  const json data = report_data(place.path() / "run", 300);
  EXPECT_EQ(data["train"].size(), 300u);
  EXPECT_EQ(data["train"].back()["step"], 1000);
  EXPECT_EQ(data["layers"], json({4}));
  EXPECT_EQ(data["parameters"], 10);
}

TEST(WriteReport, IsOneFileThatNeedsNoNetwork) {
  const RunPlace place;
  write_run(place, 3);
  write_report(place.path() / "run");
  const std::string page = read_text(place.path() / "run/report.html");
  EXPECT_EQ(page.find("src="), std::string::npos);
  EXPECT_EQ(page.find("@REPORT"), std::string::npos);
  // Text of a sample cannot end the script that carries it.
  EXPECT_EQ(page.find("</script><b>"), std::string::npos);
  EXPECT_NE(page.find("\\u003c/script>"), std::string::npos);
}

TEST(WriteReport, NamesAMissingRun) { EXPECT_THROW(write_report("/no/such/run"), UserError); }

}  // namespace
}  // namespace motley
