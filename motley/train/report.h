// report.html: one self-contained page about a run, made from its config.json and metrics.jsonl.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace motley {

// At most `max_lines` lines of those it is given, evenly spread, with the last.
class ThinnedLines {
 public:
  explicit ThinnedLines(size_t max_lines) : max_lines_(max_lines) {}
  void add(nlohmann::json line);
  nlohmann::json lines() const;

 private:
  size_t max_lines_, count_ = 0, stride_ = 1;
  std::vector<nlohmann::json> kept_;  // every stride_-th
  nlohmann::json last_;
};

// Follows metrics.jsonl as it grows: each line is read once, so that a report costs the same after a week.
class RunReport {
 public:
  explicit RunReport(std::filesystem::path run, size_t max_lines = 600);

  // What the page shows: {"run", "config", "train", "eval", "sample", ...}. A last line that is cut short is
  // left for the next time. Throws UserError when config.json cannot be read.
  nlohmann::json data();
  // Writes run/report.html atomically. Throws UserError when a file cannot be read or written.
  void write();

 private:
  void read_new_lines();

  std::filesystem::path run_;
  int64_t read_bytes_ = 0;
  nlohmann::json info_ = nlohmann::json::object();  // the "run" line
  ThinnedLines train_, eval_, sample_;
};

}  // namespace motley
