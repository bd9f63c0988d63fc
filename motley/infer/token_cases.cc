#include "motley/infer/token_cases.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "motley/base/config_values.h"
#include "motley/base/error.h"

namespace motley {

std::vector<std::vector<int64_t>> read_token_cases(const std::filesystem::path& path) {
  const nlohmann::json json = read_json_file(path.string());
  if (!json.is_array() || json.empty()) {
    throw UserError(Mistake{path.string(), "a list of lists of token ids",
                            json.empty() ? "nothing" : json.type_name(), "for example [[1, 2, 3], [4, 5]]"});
  }
  std::vector<std::vector<int64_t>> cases;
  for (const nlohmann::json& element : json) {
    const bool object = element.is_object() && element.contains("prompt");
    const nlohmann::json& ids = object ? element["prompt"] : element;
    const auto whole = [](const nlohmann::json& id) {
      // A negative id is told as such by the model's check; one beyond int64 would come out as negative.
      return id.is_number_integer() &&
             (!id.is_number_unsigned() || id.get<uint64_t>() <= std::numeric_limits<int64_t>::max());
    };
    if (!ids.is_array() || !std::all_of(ids.begin(), ids.end(), whole)) {
      const std::string text = element.dump();
      throw UserError(Mistake{concat(path.string(), ": element ", cases.size()),
                              "a list of token ids, or an object with one under \"prompt\"",
                              text.size() > 80 ? text.substr(0, 80) + "..." : text,
                              {}});
    }
    cases.push_back(ids.get<std::vector<int64_t>>());
  }
  return cases;
}

}  // namespace motley
