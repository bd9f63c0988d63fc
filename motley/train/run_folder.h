// The folder of one run, and the one process that may write in it: config.json, metrics.jsonl, report.html,
// checkpoints/step_<n>/, model/.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "motley/train/checkpoint.h"

namespace motley {

class RunFolder {
 public:
  explicit RunFolder(std::filesystem::path path);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path metrics() const { return path_ / "metrics.jsonl"; }
  std::filesystem::path report() const { return path_ / "report.html"; }
  std::filesystem::path model() const { return path_ / "model"; }
  std::filesystem::path checkpoint(int64_t step) const;

  bool exists() const;  // holds a run's config.json

  // Writes nothing. Throws UserError when the folder cannot be made or written, holds something else than a
  // run, or a run of another configuration (naming the first key that differs).
  void check(const nlohmann::json& configuration) const;

  // Makes the folder, keeps other processes out of it, removes what died unfinished, writes config.json.
  // Throws UserError when that is not possible; a folder made here is then removed again. Once only.
  void begin(const nlohmann::json& configuration);
  // Removes what begin() and a run without checkpoints made. For a run whose first step fails.
  void discard();

  // The newest checkpoint that is whole and of this configuration. Others are passed over with a warning
  // that names them and are left alone. Throws UserError when there are checkpoints but no good one.
  std::optional<TrainerState> newest_checkpoint(const nlohmann::json& configuration);

  // After checkpoint `written`: removes all but the last `keep` and `best`, and those passed over.
  void prune(int64_t written, int64_t keep, std::optional<int64_t> best);

  std::vector<int64_t> checkpoint_steps() const;  // ascending

 private:
  void lock();
  void remove_unfinished(const std::filesystem::path& folder) const;

  std::filesystem::path path_;
  int lock_ = -1;
  bool made_ = false;  // by this process
  std::set<int64_t> bad_steps_;
};

}  // namespace motley
