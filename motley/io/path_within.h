// Where files lie, whatever their paths look like.
#pragma once

#include <algorithm>
#include <filesystem>
#include <system_error>

namespace motley {

// Whether `path` is `folder` or lies in it, links resolved as far as they exist. Hard links are not seen.
inline bool path_within(const std::filesystem::path& path, const std::filesystem::path& folder) {
  std::error_code error;
  const auto inner = std::filesystem::weakly_canonical(std::filesystem::absolute(path, error), error);
  const auto outer = std::filesystem::weakly_canonical(std::filesystem::absolute(folder, error), error);
  if (inner.empty() || outer.empty()) return false;
  const auto rest = std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first;
  return rest == outer.end() || (rest->empty() && std::next(rest) == outer.end());  // "folder/"
}

}  // namespace motley
