#include "motley/train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "motley/base/config_values.h"
#include "motley/base/error.h"
#include "motley/base/log.h"
#include "motley/io/atomic_file.h"
#include "motley/models/registry.h"
#include "motley/train/run_config.h"

namespace motley {
namespace {

namespace fs = std::filesystem;

fs::path config_file(const fs::path& run) { return run / "config.json"; }

// A run that is older than a key has the key's default.
nlohmann::json with_defaults(const nlohmann::json& configuration, const std::string& source) {
  return to_json(parse_run_config(configuration, source));
}

}  // namespace

RunFolder::RunFolder(fs::path path) : path_(std::move(path)) {
  if (!path_.has_filename() && path_.has_parent_path()) path_ = path_.parent_path();
}

RunFolder::~RunFolder() {
  if (lock_ >= 0) ::close(lock_);
}

fs::path RunFolder::checkpoint(int64_t step) const { return path_ / "checkpoints" / checkpoint_name(step); }

bool RunFolder::exists() const { return fs::exists(config_file(path_)); }

void RunFolder::check(const nlohmann::json& configuration) const {
  std::error_code error;
  if (!fs::exists(path_, error)) return check_folder(path_);
  if (!fs::is_directory(path_)) {
    throw UserError(Mistake{path_.string(), "a folder for the run", "a file", "choose another --out"});
  }
  check_folder(path_);
  if (!exists()) {
    for (const auto& entry : fs::directory_iterator(path_)) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with('.') || is_unfinished(entry.path())) continue;
      throw UserError(Mistake{path_.string(), "a new or empty folder, or one with a run's config.json",
                              concat("a folder with ", name), "choose another --out"});
    }
    return;
  }
  const std::string file = config_file(path_).string();
  const nlohmann::json found = with_defaults(read_json_file(file), file);
  const std::string key = first_difference(configuration, found);
  if (key.empty()) return;
  const auto value_of = [&](const nlohmann::json& json) {
    std::string pointer = "/" + key;
    std::replace(pointer.begin(), pointer.end(), '.', '/');
    const nlohmann::json::json_pointer place(pointer);
    return json.contains(place) ? json_text(json.at(place)) : std::string("no such key");
  };
  throw UserError(
      Mistake{path_.string(),
              concat("a run with the same configuration, in which ", key, " is ", value_of(configuration)),
              value_of(found), "choose another --out, or remove this run"});
}

void RunFolder::begin(const nlohmann::json& configuration) {
  if (lock_ >= 0) return;
  check(configuration);
  made_ = make_folder(path_);
  try {
    lock();
  } catch (...) {
    std::error_code ignored;
    if (made_) fs::remove(path_, ignored);  // not if it holds anything: another process may have been faster
    throw;
  }
  try {
    check(configuration);  // again: nobody else writes here from now on
    for (const fs::path& folder : {path_, path_ / "checkpoints"}) {
      restore_swapped_out(folder);
      remove_unfinished(folder);
    }
    if (!exists()) write_file_atomic(config_file(path_), json_text(configuration, 2) + '\n');
  } catch (...) {
    std::error_code ignored;
    if (made_) fs::remove_all(path_, ignored);
    throw;
  }
}

void RunFolder::discard() {
  std::error_code ignored;
  if (lock_ < 0 || !checkpoint_steps().empty()) return;
  for (const char* name : {"config.json", "metrics.jsonl", "report.html", "checkpoints", ".lock"}) {
    fs::remove_all(path_ / name, ignored);
  }
  if (made_) fs::remove(path_, ignored);
}

void RunFolder::lock() {
  const fs::path file = path_ / ".lock";
  lock_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0) throw_file_error("write", file.string(), errno);
  // The lock goes with the process, however it ends.
  const int reason = ::flock(lock_, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
  struct stat locked {
  }, there{};
  // A process that failed may have removed the folder between the two calls: then this locks a file that is
  // gone.
  const bool mine = reason == 0 && ::fstat(lock_, &locked) == 0 && ::stat(file.c_str(), &there) == 0 &&
                    locked.st_ino == there.st_ino;
  if (mine) return;
  ::close(lock_);
  lock_ = -1;
  if (reason != 0 && reason != EWOULDBLOCK) throw_file_error("lock", file.string(), reason);
  throw UserError(Mistake{path_.string(), "a run that nobody is working on",
                          "another process that trains here", "wait for it or stop it"});
}

void RunFolder::remove_unfinished(const fs::path& folder) const {
  std::error_code error;
  std::vector<fs::path> unfinished;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (is_unfinished(entry.path())) unfinished.push_back(entry.path());
  }
  for (const auto& path : unfinished) {
    fs::remove_all(path, error);
    if (error) throw_file_error("remove", path.string(), error.value());
    log_info("removed ", path.string(), ", left by a process that was stopped");
  }
}

std::vector<int64_t> RunFolder::checkpoint_steps() const {
  std::vector<int64_t> steps;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(path_ / "checkpoints", error)) {
    if (const auto step = checkpoint_step(entry.path())) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::optional<TrainerState> RunFolder::newest_checkpoint(const nlohmann::json& configuration) {
  const std::vector<int64_t> steps = checkpoint_steps();
  std::string reasons;
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    try {
      TrainerState state = read_trainer_state(checkpoint(*step));
      const std::string source = checkpoint(*step).string();
      const std::string key = first_difference(configuration, with_defaults(state.configuration, source));
      MOTLEY_CHECK_USER(key.empty() && state.step == *step, checkpoint(*step).string(),
                        ": belongs to another run (", key.empty() ? "step" : key, " differs)");
      if (!reasons.empty()) log_warn("going on from the older checkpoint ", checkpoint(*step).string());
      return state;
    } catch (const UserError& error) {
      bad_steps_.insert(*step);
      log_warn("passing over a checkpoint: ", error.what());
      reasons += concat("\n  ", error.what());
    }
  }
  if (steps.empty()) return std::nullopt;
  throw UserError(concat((path_ / "checkpoints").string(),
                         ": expected at least one whole checkpoint of this run, found none among ",
                         steps.size(), "; remove them to start again from the beginning", reasons));
}

void RunFolder::prune(int64_t written, int64_t keep, std::optional<int64_t> best) {
  bad_steps_.erase(written);
  std::vector<int64_t> steps = checkpoint_steps();
  std::erase_if(steps, [&](int64_t step) { return bad_steps_.contains(step); });
  const auto surplus = static_cast<int64_t>(steps.size()) - keep;
  for (int64_t i = 0; i < surplus; ++i) {
    if (best && steps[i] == *best) continue;
    // Renamed first: a process that dies meanwhile leaves no half checkpoint.
    const fs::path folder = checkpoint(steps[i]);
    const fs::path doomed = folder.string() + ".removed.unfinished";
    std::error_code error;
    fs::rename(folder, doomed, error);
    if (!error) fs::remove_all(doomed, error);
    if (error) throw_file_error("remove", folder.string(), error.value());
  }
}

}  // namespace motley
