#include "motley/train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "motley/base/config_values.h"
#include "motley/base/error.h"
#include "motley/base/log.h"
#include "motley/io/atomic_file.h"
#include "motley/train/run_config.h"

namespace motley {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kStepPrefix = "step_";

fs::path config_file(const fs::path& run) { return run / "config.json"; }

std::optional<int64_t> parse_step(const std::string& name) {
  if (!name.starts_with(kStepPrefix)) return std::nullopt;
  const char* begin = name.data() + kStepPrefix.size();
  const char* end = name.data() + name.size();
  int64_t step = 0;
  const auto result = std::from_chars(begin, end, step);
  const bool whole = result.ec == std::errc() && result.ptr == end && step >= 0;
  return whole ? std::optional<int64_t>(step) : std::nullopt;
}

}  // namespace

RunFolder::RunFolder(fs::path path) : path_(std::move(path)) {
  if (!path_.has_filename() && path_.has_parent_path()) path_ = path_.parent_path();
}

RunFolder::~RunFolder() {
  if (lock_ >= 0) ::close(lock_);
}

fs::path RunFolder::checkpoint(int64_t step) const {
  return path_ / "checkpoints" / concat(kStepPrefix, step);
}

bool RunFolder::exists() const { return fs::exists(config_file(path_)); }

void RunFolder::check(const nlohmann::json& configuration) const {
  std::error_code error;
  if (!fs::exists(path_, error)) return;
  if (!fs::is_directory(path_)) {
    throw UserError(Mistake{path_.string(), "a folder for the run", "a file", "choose another --out"});
  }
  if (!exists()) {
    for (const auto& entry : fs::directory_iterator(path_)) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with('.') || is_unfinished(entry.path())) continue;
      throw UserError(Mistake{path_.string(), "a new or empty folder, or one with a run's config.json",
                              concat("a folder with ", name), "choose another --out"});
    }
    return;
  }
  const nlohmann::json found = read_json_file(config_file(path_).string());
  const std::string key = first_difference(configuration, found);
  if (key.empty()) return;
  const auto value_of = [&](const nlohmann::json& json) {
    std::string pointer = "/" + key;
    std::replace(pointer.begin(), pointer.end(), '.', '/');
    const nlohmann::json::json_pointer place(pointer);
    return json.contains(place) ? json.at(place).dump() : std::string("no such key");
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
  lock();  // fails where another process was faster; the folder is then its own
  try {
    check(configuration);  // again: nobody else writes here from now on
    remove_unfinished(path_);
    remove_unfinished(path_ / "checkpoints");
    if (!exists()) write_file_atomic(config_file(path_), configuration.dump(2) + '\n');
  } catch (...) {
    std::error_code ignored;
    if (made_) fs::remove_all(path_, ignored);
    throw;
  }
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
    if (const auto step = parse_step(entry.path().filename().string())) steps.push_back(*step);
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
      const std::string key = first_difference(configuration, state.configuration);
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
    const fs::path doomed = folder.string() + ".old.unfinished";
    std::error_code error;
    fs::rename(folder, doomed, error);
    if (!error) fs::remove_all(doomed, error);
    if (error) throw_file_error("remove", folder.string(), error.value());
  }
}

}  // namespace motley
