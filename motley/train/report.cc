#include "motley/train/report.h"

#include <fstream>

#include "motley/base/config_values.h"
#include "motley/base/error.h"
#include "motley/io/atomic_file.h"
#include "motley/train/metrics_log.h"
#include "motley_report_page.h"

namespace motley {
namespace {

using nlohmann::json;

// At most `max_lines` entries, evenly spread, with the last.
json thin(const json& lines, size_t max_lines) {
  if (lines.size() <= max_lines) return lines;
  json kept = json::array();
  for (size_t i = 1; i <= max_lines; ++i) kept.push_back(lines[i * lines.size() / max_lines - 1]);
  return kept;
}

void replace(std::string& text, const std::string& mark, const std::string& value) {
  const size_t at = text.find(mark);
  MOTLEY_CHECK(at != std::string::npos, "no ", mark, " in the report's page");
  text.replace(at, mark.size(), value);
}

// JSON may stand inside a script element once no "<" can end that element.
std::string for_script(const json& data) {
  std::string text;
  for (const char c : to_line(data)) {
    if (c == '<') {
      text += "\\u003c";
    } else {
      text += c;
    }
  }
  return text;
}

}  // namespace

json report_data(const std::filesystem::path& run, size_t max_lines) {
  const json config = read_json_file((run / "config.json").string());
  json lists = {{"train", json::array()}, {"eval", json::array()}, {"sample", json::array()}};
  json info = json::object();
  std::ifstream metrics(run / "metrics.jsonl");
  for (std::string text; std::getline(metrics, text);) {
    const json line = json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!line.is_object()) continue;
    const std::string kind = line.value("kind", "");
    if (kind == "run") info = line;
    if (lists.contains(kind)) lists[kind].push_back(line);
  }
  const std::string name = std::filesystem::absolute(run).filename().string();
  return {{"run", name},
          {"config", config},
          {"data_path", config.at("data").at("path")},
          {"parameters", info.value("parameters", json())},
          {"threads", info.value("threads", json())},
          {"layers", lists["train"].empty() ? json::array() : lists["train"].back().at("layers")},
          {"num_experts", info.value("num_experts", json::array())},
          {"train", thin(lists["train"], max_lines)},
          {"eval", thin(lists["eval"], max_lines)},
          {"sample", thin(lists["sample"], 12)}};
}

void write_report(const std::filesystem::path& run) {
  std::string page = kReportPage;
  replace(page, "@REPORT_SCRIPT@", kReportScript);
  replace(page, "@REPORT_DATA@", for_script(report_data(run)));
  write_file_atomic(run / "report.html", page);
}

}  // namespace motley
