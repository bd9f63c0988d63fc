// report.html: one self-contained page about a run, made from its config.json and metrics.jsonl.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

namespace motley {

// What the page shows: {"run", "config", "info", "train", "eval", "sample"}, the lists thinned out evenly to
// at most max_lines lines each, keeping the last. A last line that is cut short is passed over.
nlohmann::json report_data(const std::filesystem::path& run, size_t max_lines = 600);

// Writes run/report.html atomically. Throws UserError when a file cannot be read or written.
void write_report(const std::filesystem::path& run);

}  // namespace motley
