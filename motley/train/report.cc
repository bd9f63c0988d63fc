#include "motley/train/report.h"

#include <fstream>

#include "motley/base/config_values.h"
#include "motley/base/error.h"
#include "motley/io/atomic_file.h"
#include "motley_report_page.h"

namespace motley {
namespace {

using nlohmann::json;

constexpr size_t kMaxSamples = 12;

void replace(std::string& text, const std::string& mark, const std::string& value) {
  const size_t at = text.find(mark);
  MOTLEY_CHECK(at != std::string::npos, "no ", mark, " in the report's page");
  text.replace(at, mark.size(), value);
}

// JSON may stand inside a script element once no "<" can end that element.
std::string for_script(const json& data) {
  std::string text;
  for (const char c : json_text(data)) {
    if (c == '<') {
      text += "\\u003c";
    } else {
      text += c;
    }
  }
  return text;
}

}  // namespace

void ThinnedLines::add(json line) {
  if (count_++ % stride_ == 0) kept_.push_back(line);
  last_ = std::move(line);
  if (kept_.size() < max_lines_) return;  // one place is for the last line
  stride_ *= 2;
  for (size_t i = 1; 2 * i < kept_.size(); ++i) kept_[i] = std::move(kept_[2 * i]);
  kept_.resize((kept_.size() + 1) / 2);
}

json ThinnedLines::lines() const {
  json lines = kept_;
  if (count_ > 0 && (count_ - 1) % stride_ != 0) lines.push_back(last_);
  return lines;
}

RunReport::RunReport(std::filesystem::path run, size_t max_lines)
    : run_(std::move(run)), train_(max_lines), eval_(max_lines), sample_(kMaxSamples) {}

void RunReport::read_new_lines() {
  std::ifstream metrics(run_ / "metrics.jsonl", std::ios::binary);
  metrics.seekg(read_bytes_);
  for (std::string text; std::getline(metrics, text) && !metrics.eof();) {
    read_bytes_ += static_cast<int64_t>(text.size()) + 1;
    const json line = json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!line.is_object()) continue;
    const json kind = line.value("kind", json());
    if (kind == "run") info_ = line;
    if (kind == "train") train_.add(line);
    if (kind == "eval") eval_.add(line);
    if (kind == "sample") sample_.add(line);
  }
}

json RunReport::data() {
  read_new_lines();
  const json config = read_json_file((run_ / "config.json").string());
  const json train = train_.lines();
  return {{"run", std::filesystem::absolute(run_).filename().string()},
          {"config", config},
          {"data_path", config.at("data").at("path")},
          {"parameters", info_.value("parameters", json())},
          {"threads", info_.value("threads", json())},
          {"layers", train.empty() ? json::array() : train.back().at("layers")},
          {"num_experts", info_.value("num_experts", json::array())},
          {"train", train},
          {"eval", eval_.lines()},
          {"sample", sample_.lines()}};
}

void RunReport::write() {
  std::string page = kReportPage;
  replace(page, "@REPORT_SCRIPT@", kReportScript);
  replace(page, "@REPORT_DATA@", for_script(data()));
  write_file_atomic(run_ / "report.html", page);
}

}  // namespace motley
