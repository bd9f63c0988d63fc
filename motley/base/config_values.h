#pragma once
// Typed reading of a JSON configuration, and `--set key=value` changes to one.
#include <cstdint>
#include <limits>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace motley {

// Both ends are allowed values.
struct Range {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
};
constexpr Range at_least(double min) { return {min, std::numeric_limits<double>::infinity()}; }
constexpr Range between(double min, double max) { return {min, max}; }

// What an error about `key` begins with. A source is a file, or an object in one, written with a dot at its
// end: "c.json: steps" for the source "c.json", "c.json: model.num_experts" for "c.json: model.".
std::string key_place(const std::string& source, std::string_view key);

// Reads one JSON object. Every key asked for counts as known; finish() makes every other key an error that
// names the nearest known one. Errors are UserError and carry the file and the dotted path of the key,
// e.g. "configs/a.json: train.learning_rate: expected a number of at least 0, found -1".
//
//   ConfigValues train = ConfigValues(json, "configs/a.json").section("train");
//   options.steps = train.required<int64_t>("steps", at_least(1));
//   options.schedule = train.choice("schedule", {"cosine", "constant"}, "cosine");
//   train.finish();
//
// T is one of bool, int, int64_t, float, double, std::string, or std::vector of int64_t, double or string.
// A range holds a number, or every element of a list of numbers. `null` counts as absent.
class ConfigValues {
 public:
  // `object` must live as long as this. `source` names where it stands, see key_place(); `path` is the dotted
  // path of the object from there.
  ConfigValues(const nlohmann::json& object, std::string source, std::string path = {});

  template <class T>
  T required(std::string_view key, Range range = {});
  template <class T>
  T optional(std::string_view key, const T& fallback, Range range = {});

  // One of the names; the first form has no default.
  std::string choice(std::string_view key, const std::vector<std::string>& names);
  std::string choice(std::string_view key, const std::vector<std::string>& names,
                     const std::string& fallback);

  // An object under this one.
  ConfigValues section(std::string_view key);

  bool has(std::string_view key) const;  // present and not null; does not make the key known
  void know(std::string_view key);       // accepts a key that is read elsewhere
  void finish() const;                   // throws on the first key that nobody asked for
  const std::set<std::string, std::less<>>& known() const { return known_; }

  // For rules between keys: an error about `key`, or about the object if it is empty.
  [[noreturn]] void fail(std::string_view key, const std::string& expected, const std::string& found,
                         const std::string& fix = {}) const;

  const nlohmann::json& object() const { return *object_; }
  const std::string& source() const { return source_; }
  std::string path_of(std::string_view key) const;  // "train.learning_rate"

 private:
  const nlohmann::json* find(std::string_view key);
  const nlohmann::json& find_required(std::string_view key);

  const nlohmann::json* object_;
  std::string source_;
  std::string path_;
  std::set<std::string, std::less<>> known_;
};

// Throws UserError naming `where` for JSON text nested more than 100 deep, which no file of ours or Hugging
// Face's is: it is written and compared by recursion, and would end the process.
void check_json_depth(std::string_view text, const std::string& where);

// Reads a JSON file; a missing or malformed one is a UserError with the line and column.
nlohmann::json read_json_file(const std::string& path);

// Applies "train.learning_rate=3e-4" to `config`: the value is JSON where it parses as JSON and a string
// otherwise; objects on the path are made as needed; a number names an element of an existing list.
// Whether the key is known shows when the configuration is read.
void apply_setting(nlohmann::json& config, const std::string& setting);
void apply_settings(nlohmann::json& config, const std::vector<std::string>& settings);

// JSON as text, on one line unless `indent` says otherwise. Bytes that are not valid UTF-8, which paths may
// hold, are replaced; nlohmann's own dump() throws at them.
std::string json_text(const nlohmann::json& json, int indent = -1);

// The candidate with the least edit distance to `word`, or "" if none is near enough to be meant.
std::string nearest_word(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace motley
