// Prompts as token ids in a JSON file, for comparison with other engines.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace motley {

// A list whose elements are lists of ids, or objects with such a list under "prompt".
// Throws UserError naming the file, the element and what was found.
std::vector<std::vector<int64_t>> read_token_cases(const std::filesystem::path& path);

}  // namespace motley
