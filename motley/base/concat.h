#pragma once
// Joins values into one string. Cheap to compile, unlike fmt, and GCC 12 has no std::format.
#include <sstream>
#include <string>

namespace motley {

template <class... Args>
std::string concat(const Args&... args) {
  if constexpr (sizeof...(Args) == 0) {
    return {};
  } else {
    std::ostringstream out;
    out << std::boolalpha;
    (out << ... << args);
    return std::move(out).str();
  }
}

}  // namespace motley
