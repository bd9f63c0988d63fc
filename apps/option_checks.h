// What options of several commands accept. Errors read as those of files and keys: "--seed: expected a whole
// number of at least 0, found -3".
#pragma once

#include <CLI/CLI.hpp>
#include <charconv>
#include <limits>
#include <string>
#include <system_error>
#include <type_traits>
#include <vector>

#include "motley/base/concat.h"

namespace motley {

// An empty word, as of a variable that is not set, would pass for an option not given.
inline CLI::Validator not_empty(const std::string& expected) {
  return {[expected](std::string& given) {
            return given.empty() ? concat("expected ", expected, ", found nothing") : std::string();
          },
          ""};
}

inline CLI::Validator one_of(const std::vector<std::string>& words) {
  const std::string all = CLI::detail::join(words, ",");
  return {[words, all](std::string& given) {
            for (const std::string& word : words) {
              if (given == word) return std::string();
            }
            return concat("expected one of ", all, ", found '", given, "'");
          },
          concat("{", all, "}")};
}

// Both ends are allowed; neither is a number that is none.
template <class T>
CLI::Validator within(T min, T max) {
  const std::string kind = std::is_integral_v<T> ? "a whole number " : "a number ";
  const bool open = max == std::numeric_limits<T>::max();
  const std::string range = open ? concat("of at least ", min) : concat("from ", min, " to ", max);
  return {[=](std::string& given) {
            T value{};
            const char* end = given.data() + given.size();
            const auto [stop, error] = std::from_chars(given.data(), end, value);
            const bool good = error == std::errc() && stop == end && value >= min && value <= max;
            return good ? std::string() : concat("expected ", kind, range, ", found ", given);
          },
          range};
}

}  // namespace motley
