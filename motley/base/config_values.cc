#include "motley/base/config_values.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>

#include "motley/base/error.h"

namespace motley {
namespace {

using nlohmann::json;

constexpr size_t kShownCharacters = 80;

std::string shown(const json& value) {
  std::string text = json_text(value);
  if (text.size() > kShownCharacters) text = text.substr(0, kShownCharacters) + "...";
  return text;
}

// 16777216, not 1.67772e+07.
std::string number_text(double value) {
  const bool whole = std::trunc(value) == value && std::abs(value) < 1e15;
  return whole ? concat(static_cast<int64_t>(value)) : concat(value);
}

std::string range_text(Range range) {
  const bool low = std::isfinite(range.min), high = std::isfinite(range.max);
  if (low && high) return " from " + number_text(range.min) + " to " + number_text(range.max);
  if (low) return " of at least " + number_text(range.min);
  if (high) return " of at most " + number_text(range.max);
  return "";
}

bool in_range(double value, Range range) { return value >= range.min && value <= range.max; }

template <class T>
struct Reader;

template <>
struct Reader<bool> {
  static std::string expected(Range) { return "true or false"; }
  static bool read(const json& value, Range, bool& result) {
    if (!value.is_boolean()) return false;
    result = value.get<bool>();
    return true;
  }
};

template <>
struct Reader<std::string> {
  static std::string expected(Range) { return "a string"; }
  static bool read(const json& value, Range, std::string& result) {
    if (!value.is_string()) return false;
    result = value.get<std::string>();
    return true;
  }
};

template <class Integer>
struct IntegerReader {
  static std::string expected(Range range) { return "a whole number" + range_text(range); }
  static bool read(const json& value, Range range, Integer& result) {
    int64_t number = 0;
    if (value.is_number_unsigned()) {
      const auto large = value.get<uint64_t>();
      if (large > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return false;
      number = static_cast<int64_t>(large);
    } else if (value.is_number_integer()) {
      number = value.get<int64_t>();
    } else if (value.is_number_float()) {  // 1e6 is a whole number too
      const double real = value.get<double>();
      constexpr double kLargest = 9007199254740992.0;  // 2^53: beyond it a double may be rounded
      if (std::trunc(real) != real || std::abs(real) > kLargest) return false;
      number = static_cast<int64_t>(real);
    } else {
      return false;
    }
    if (number < std::numeric_limits<Integer>::min() || number > std::numeric_limits<Integer>::max()) {
      return false;
    }
    result = static_cast<Integer>(number);
    return in_range(static_cast<double>(number), range);
  }
};
template <>
struct Reader<int> : IntegerReader<int> {};
template <>
struct Reader<int64_t> : IntegerReader<int64_t> {};

template <class Real>
struct RealReader {
  static std::string expected(Range range) { return "a number" + range_text(range); }
  static bool read(const json& value, Range range, Real& result) {
    if (!value.is_number()) return false;
    result = static_cast<Real>(value.get<double>());
    return std::isfinite(result) && in_range(value.get<double>(), range);
  }
};
template <>
struct Reader<float> : RealReader<float> {};
template <>
struct Reader<double> : RealReader<double> {};

template <class T>
struct Reader<std::vector<T>> {
  static std::string expected(Range range) { return "a list, each element " + Reader<T>::expected(range); }
  static bool read(const json& value, Range range, std::vector<T>& result) {
    if (!value.is_array()) return false;
    result.clear();
    for (const json& element : value) {
      T item{};
      if (!Reader<T>::read(element, range, item)) return false;
      result.push_back(std::move(item));
    }
    return true;
  }
};

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < names.size(); ++i) {
    if (i > 0) text += i + 1 == names.size() ? " or " : ", ";
    text += names[i];
  }
  return text;
}

}  // namespace

std::string key_place(const std::string& source, std::string_view key) {
  const bool object = source.ends_with('.');
  if (key.empty()) return object ? source.substr(0, source.size() - 1) : source;
  return source + (object ? "" : ": ") + std::string(key);
}

ConfigValues::ConfigValues(const json& object, std::string source, std::string path)
    : object_(&object), source_(std::move(source)), path_(std::move(path)) {
  if (!object.is_object()) fail("", "an object {...}", shown(object));
}

std::string ConfigValues::path_of(std::string_view key) const {
  if (key.empty()) return path_;
  return path_.empty() ? std::string(key) : path_ + "." + std::string(key);
}

void ConfigValues::fail(std::string_view key, const std::string& expected, const std::string& found,
                        const std::string& fix) const {
  const std::string path = path_of(key);
  throw UserError(Mistake{key_place(source_, path), expected, found, fix});
}

bool ConfigValues::has(std::string_view key) const {
  const auto found = object_->find(key);
  return found != object_->end() && !found->is_null();
}

void ConfigValues::know(std::string_view key) { known_.emplace(key); }

const json* ConfigValues::find(std::string_view key) {
  know(key);
  return has(key) ? &*object_->find(key) : nullptr;
}

const json& ConfigValues::find_required(std::string_view key) {
  const json* value = find(key);
  if (value != nullptr) return *value;
  std::vector<std::string> unread;
  for (const auto& [name, other] : object_->items()) {
    if (known_.count(name) == 0) unread.push_back(name);
  }
  const std::string near = nearest_word(key, unread);
  fail(key, "a value", near.empty() ? "none" : "none, but '" + near + "'", "this key is required");
}

template <class T>
T ConfigValues::required(std::string_view key, Range range) {
  const json& value = find_required(key);
  T result{};
  if (!Reader<T>::read(value, range, result)) fail(key, Reader<T>::expected(range), shown(value));
  return result;
}

template <class T>
T ConfigValues::optional(std::string_view key, const T& fallback, Range range) {
  return find(key) == nullptr ? fallback : required<T>(key, range);
}

std::string ConfigValues::choice(std::string_view key, const std::vector<std::string>& names) {
  const json& value = find_required(key);
  for (const std::string& name : names) {
    if (value == name) return name;
  }
  const std::string near = value.is_string() ? nearest_word(value.get<std::string>(), names) : "";
  fail(key, join(names), shown(value), near.empty() ? "" : "did you mean '" + near + "'?");
}

std::string ConfigValues::choice(std::string_view key, const std::vector<std::string>& names,
                                 const std::string& fallback) {
  return find(key) == nullptr ? fallback : choice(key, names);
}

ConfigValues ConfigValues::section(std::string_view key) {
  return ConfigValues(find_required(key), source_, path_of(key));
}

void ConfigValues::finish() const {
  for (const auto& [key, value] : object_->items()) {
    if (known_.count(key) > 0) continue;
    const std::string near = nearest_word(key, {known_.begin(), known_.end()});
    fail(key, "a known key", "an unknown one",
         near.empty() ? "remove it, or see docs/configuration.md for the keys"
                      : "did you mean '" + path_of(near) + "'?");
  }
}

#define MOTLEY_CONFIG_TYPE(T)                                    \
  template T ConfigValues::required<T>(std::string_view, Range); \
  template T ConfigValues::optional<T>(std::string_view, const T&, Range);
MOTLEY_CONFIG_TYPE(bool)
MOTLEY_CONFIG_TYPE(int)
MOTLEY_CONFIG_TYPE(int64_t)
MOTLEY_CONFIG_TYPE(float)
MOTLEY_CONFIG_TYPE(double)
MOTLEY_CONFIG_TYPE(std::string)
MOTLEY_CONFIG_TYPE(std::vector<int64_t>)
MOTLEY_CONFIG_TYPE(std::vector<double>)
MOTLEY_CONFIG_TYPE(std::vector<std::string>)
#undef MOTLEY_CONFIG_TYPE

}  // namespace motley
