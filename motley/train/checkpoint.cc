#include "motley/train/checkpoint.h"

#include <zlib.h>

#include "motley/base/config_values.h"
#include "motley/base/error.h"
#include "motley/io/atomic_file.h"
#include "motley/io/mapped_file.h"
#include "motley/io/safetensors.h"
#include "motley/models/registry.h"
#include "motley/train/metrics_window.h"

namespace motley {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kStateFile = "trainer.json";
constexpr const char* kFormat = "motley checkpoint 2";

uint32_t file_checksum(const MappedFile& file) {
  return static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(file.data()), file.size()));
}

// Size and checksum of each file that stands in the folder so far.
json list_files(const fs::path& folder) {
  json files = json::object();
  for (const auto& entry : fs::directory_iterator(folder)) {
    const MappedFile file(entry.path());
    files[entry.path().filename().string()] = {{"bytes", file.size()}, {"crc32", file_checksum(file)}};
  }
  return files;
}

void check_file(const fs::path& path, const json& expected) {
  const auto bytes = expected.at("bytes").get<uint64_t>();
  const MappedFile file(path);
  if (file.size() != bytes) {
    throw UserError(Mistake{path.string(), concat(bytes, " bytes, as trainer.json says"),
                            concat(file.size(), " bytes"), ""});
  }
  if (file_checksum(file) != expected.at("crc32").get<uint32_t>()) {
    throw UserError(Mistake{path.string(), "the content it was written with", "other bytes", ""});
  }
}

// trainer.json tells of damage to the other files, and "crc32" of damage to itself.
uint32_t state_checksum(json file) {
  file.erase("crc32");
  const std::string text = json_text(file);
  return static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(text.data()), text.size()));
}

void check_listed(const fs::path& path, const json& files) {
  const auto listed = [&](const std::string& start, const std::string& end) {
    for (const auto& item : files.items()) {
      if (item.key().starts_with(start) && item.key().ends_with(end)) return true;
    }
    return false;
  };
  for (const auto& [start, end] :
       {std::pair{"config", ".json"}, std::pair{"tokenizer", ".json"}, std::pair{"model", ".safetensors"},
        std::pair{"optimizer", ".safetensors"}}) {
    if (!listed(start, end))
      throw UserError(Mistake{path.string(), concat(start, end, " among its files"), "none", ""});
  }
}

template <class T>
json or_null(const std::optional<T>& value) {
  return value ? json(*value) : json();
}

template <class T>
std::optional<T> from_null(const json& value) {
  return value.is_null() ? std::nullopt : std::optional<T>(value.get<T>());
}

json to_json(const TrainerState& state) {
  return {{"format", kFormat},
          {"step", state.step},
          {"tokens", state.tokens},
          {"seconds", state.seconds},
          {"threads", state.threads},
          {"best_step", or_null(state.best_step)},
          {"best_loss", state.best_loss},
          {"validation_loss", or_null(state.validation_loss)},
          {"final_loss", or_null(state.final_loss)},
          {"last_window", state.last_window},
          {"settled", state.settled},
          {"ended", state.ended},
          {"metrics_bytes", state.metrics_bytes},
          {"window", state.window},
          {"data", state.data},
          {"configuration", state.configuration}};
}

TrainerState from_json(const json& file) {
  TrainerState state;
  file.at("step").get_to(state.step);
  file.at("tokens").get_to(state.tokens);
  file.at("seconds").get_to(state.seconds);
  file.at("threads").get_to(state.threads);
  state.best_step = from_null<int64_t>(file.at("best_step"));
  file.at("best_loss").get_to(state.best_loss);
  state.validation_loss = from_null<double>(file.at("validation_loss"));
  state.final_loss = from_null<double>(file.at("final_loss"));
  state.last_window = file.at("last_window");
  file.at("settled").get_to(state.settled);
  file.at("ended").get_to(state.ended);
  file.at("metrics_bytes").get_to(state.metrics_bytes);
  state.window = file.at("window");
  state.data = file.at("data");
  state.configuration = file.at("configuration");
  MetricsWindow({}).load(state.window);  // throws where a field is missing or of another type
  return state;
}

void write_state_file(const fs::path& folder, const TrainerState& state, const json& files) {
  json file = to_json(state);
  file["files"] = files;
  file = json::parse(json_text(file));  // bytes that are not UTF-8 are gone before the checksum is taken
  file["crc32"] = state_checksum(file);
  write_file_atomic(folder / kStateFile, json_text(file, 2) + '\n');
}

}  // namespace

void write_checkpoint(const fs::path& folder, CausalLm& model, const Tokenizer& tokenizer,
                      const AdamW& optimizer, const TrainerState& state) {
  AtomicFolder unfinished(folder);
  save_model(model, unfinished.path());
  write_tokenizer(tokenizer, unfinished.path());
  write_tensor_folder(unfinished.path(), optimizer.state(), "optimizer");
  write_state_file(unfinished.path(), state, list_files(unfinished.path()));
  unfinished.commit();
}

void write_trainer_state(const fs::path& folder, const TrainerState& state) {
  const json old = read_json_file((folder / kStateFile).string());
  write_state_file(folder, state, old.at("files"));
}

TrainerState read_trainer_state(const fs::path& folder) {
  const fs::path path = folder / kStateFile;
  const json file = read_json_file(path.string());
  if (!file.is_object() || file.value("format", json()) != kFormat) {
    throw UserError(
        Mistake{path.string(), concat("\"format\": \"", kFormat, "\""), "another kind of file", ""});
  }
  if (file.value("crc32", json()) != state_checksum(file)) {
    throw UserError(Mistake{path.string(), "the content it was written with", "something else", ""});
  }
  try {
    check_listed(path, file.at("files"));
    for (const auto& item : file.at("files").items()) check_file(folder / item.key(), item.value());
    return from_json(file);
  } catch (const json::exception& error) {
    throw UserError(Mistake{path.string(), "a whole trainer.json", error.what(), ""});
  }
}

}  // namespace motley
