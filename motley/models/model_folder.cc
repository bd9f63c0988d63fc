// Finds the model in what a user names: a model folder, a checkpoint, or a whole run.
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <system_error>

#include "motley/base/config_values.h"
#include "motley/base/error.h"
#include "motley/io/atomic_file.h"
#include "motley/models/registry.h"

namespace motley {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kStepPrefix = "step_";

bool has_tensors(const fs::path& folder) {
  for (const char* name : {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                           "pytorch_model.bin.index.json"}) {
    if (fs::exists(folder / name)) return true;
  }
  return false;
}

// The best checkpoint by the trainer's own word (trainer.json of the last one), else the last.
std::optional<fs::path> best_checkpoint(const fs::path& checkpoints) {
  std::optional<int64_t> last;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(checkpoints, ignored)) {
    const auto step = checkpoint_step(entry.path());
    if (step && has_tensors(entry.path()) && (!last || *step > *last)) last = step;
  }
  if (!last) return std::nullopt;
  const auto folder = [&](int64_t step) { return checkpoints / checkpoint_name(step); };
  if (const fs::path state = folder(*last) / "trainer.json"; fs::exists(state)) {
    const nlohmann::json json = read_json_file(state.string());
    const auto best = json.is_object() ? json.find("best_step") : json.end();
    if (best != json.end() && best->is_number_integer() && has_tensors(folder(*best))) return folder(*best);
  }
  return folder(*last);
}

}  // namespace

std::string checkpoint_name(int64_t step) { return concat(kStepPrefix, step); }

std::optional<int64_t> checkpoint_step(const fs::path& path) {
  const std::string name = path.filename().string();
  if (!name.starts_with(kStepPrefix)) return std::nullopt;
  const char* end = name.data() + name.size();
  int64_t step = 0;
  const auto result = std::from_chars(name.data() + kStepPrefix.size(), end, step);
  const bool whole = result.ec == std::errc() && result.ptr == end && step >= 0;
  return whole ? std::optional<int64_t>(step) : std::nullopt;
}

fs::path find_model_folder(const fs::path& path) {
  if (!fs::exists(path))
    throw UserError(Mistake{path.string(), "a model folder or a run folder", "no such folder", {}});
  if (!fs::is_directory(path))
    throw UserError(Mistake{path.string(), "a model folder or a run folder", "a file", {}});
  if (has_tensors(path)) {
    if (!fs::exists(path / "config.json")) {
      throw UserError(Mistake{path.string(), "config.json beside the tensors", "none", {}});
    }
    return path;
  }
  if (has_tensors(path / "model")) return path / "model";
  if (const auto checkpoint = best_checkpoint(path / "checkpoints")) return *checkpoint;
  if (fs::exists(path / "config.json")) {
    throw UserError(Mistake{path.string(),
                            "model.safetensors beside config.json, or a run's model/ or checkpoints/",
                            "config.json alone",
                            {}});
  }
  throw UserError(Mistake{path.string(),
                          "config.json with model.safetensors, or a run's model/ or checkpoints/",
                          "none of them", "name the folder that holds config.json"});
}

}  // namespace motley
