#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "motley/base/config_values.h"
#include "motley/base/error.h"

namespace motley {
namespace {

std::vector<std::string> split_path(const std::string& path, const std::string& setting) {
  std::vector<std::string> parts;
  for (size_t start = 0; start <= path.size();) {
    const size_t end = std::min(path.find('.', start), path.size());
    parts.push_back(path.substr(start, end - start));
    if (parts.back().empty()) {
      throw UserError(Mistake{"--set " + setting, "KEY=VALUE with a dotted key such as train.learning_rate",
                              "an empty part in '" + path + "'", ""});
    }
    start = end + 1;
  }
  return parts;
}

// The element of `parent` that `part` names; made in an object, required in a list.
nlohmann::json& child(nlohmann::json& parent, const std::string& part, const std::string& setting) {
  if (parent.is_null()) parent = nlohmann::json::object();
  if (parent.is_object()) return parent[part];
  if (!parent.is_array()) {
    throw UserError(Mistake{"--set " + setting, "an object that holds '" + part + "'",
                            concat("the value ", parent.dump(), " in its place"), ""});
  }
  size_t index = 0;
  const auto [stop, error] = std::from_chars(part.data(), part.data() + part.size(), index);
  if (error != std::errc() || stop != part.data() + part.size() || index >= parent.size()) {
    throw UserError(Mistake{"--set " + setting,
                            concat("a position below ", parent.size(), ", the length of the list"),
                            "'" + part + "'", ""});
  }
  return parent[index];
}

}  // namespace

void check_json_depth(std::string_view text, const std::string& where) {
  constexpr int kMaxDepth = 100;
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') quoted = !quoted;
    if (quoted && c == '\\') ++i;
    if (quoted) continue;
    if (c == '[' || c == '{') ++depth;
    if (c == ']' || c == '}') --depth;
    if (depth > kMaxDepth) {
      throw UserError(Mistake{where, concat("JSON nested at most ", kMaxDepth, " deep"), "more", ""});
    }
  }
}

nlohmann::json read_json_file(const std::string& path) {
  if (std::filesystem::is_directory(path)) throw_file_error("read", path, EISDIR);
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) throw_file_error("read", path, errno);
  std::ostringstream content;
  content << file.rdbuf();
  const std::string text = std::move(content).str();
  if (text.empty()) throw UserError(Mistake{path, "JSON", "an empty file", ""});
  check_json_depth(text, path);
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::out_of_range& error) {
    throw UserError(Mistake{path, "numbers that a double holds", error.what(), ""});
  } catch (const nlohmann::json::parse_error& error) {
    const size_t end = std::min(text.size(), error.byte == 0 ? 0 : error.byte - 1);
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(end), '\n');
    const size_t line_start = end == 0 ? std::string::npos : text.rfind('\n', end - 1);
    const size_t column = line_start == std::string::npos ? end + 1 : end - line_start;
    throw UserError(concat(path, ":", line, ":", column, ": expected JSON, found ",
                           end < text.size() ? "a syntax error here" : "the end of the file", " (",
                           error.what(), ")"));
  }
}

void apply_setting(nlohmann::json& config, const std::string& setting) {
  const size_t equals = setting.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw UserError(Mistake{"--set", "KEY=VALUE, e.g. train.learning_rate=3e-4", "'" + setting + "'", ""});
  }
  if (nlohmann::json(setting) != nlohmann::json::parse(json_text(setting))) {
    throw UserError(Mistake{"--set " + setting.substr(0, equals), "UTF-8", "other bytes", ""});
  }
  nlohmann::json* place = &config;
  for (const std::string& part : split_path(setting.substr(0, equals), setting)) {
    place = &child(*place, part, setting);
  }
  const std::string value = setting.substr(equals + 1);
  check_json_depth(value, "--set " + setting.substr(0, equals));
  nlohmann::json parsed = nlohmann::json::parse(value, nullptr, /*allow_exceptions=*/false);
  *place = parsed.is_discarded() ? nlohmann::json(value) : std::move(parsed);
}

std::string json_text(const nlohmann::json& json, int indent) {
  return json.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace);
}

void apply_settings(nlohmann::json& config, const std::vector<std::string>& settings) {
  for (const std::string& setting : settings) apply_setting(config, setting);
}

}  // namespace motley
