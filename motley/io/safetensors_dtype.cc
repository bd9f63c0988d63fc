#include "motley/io/safetensors_dtype.h"

#include <array>

#include "motley/base/error.h"

namespace motley {
namespace {

struct Name {
  at::ScalarType dtype;
  std::string_view name;
};
constexpr std::array kNames = {
    Name{at::kBool, "BOOL"},
    Name{at::kByte, "U8"},
    Name{at::kChar, "I8"},
    Name{at::kShort, "I16"},
    Name{at::kInt, "I32"},
    Name{at::kLong, "I64"},
    Name{at::kHalf, "F16"},
    Name{at::kBFloat16, "BF16"},
    Name{at::kFloat, "F32"},
    Name{at::kDouble, "F64"},
    Name{at::kUInt16, "U16"},
    Name{at::kUInt32, "U32"},
    Name{at::kUInt64, "U64"},
    Name{at::kFloat8_e4m3fn, "F8_E4M3"},
    Name{at::kFloat8_e5m2, "F8_E5M2"},
};

}  // namespace

std::optional<at::ScalarType> safetensors_dtype(std::string_view name) {
  for (const Name& known : kNames) {
    if (known.name == name) return known.dtype;
  }
  return std::nullopt;
}

std::string safetensors_dtype_names() {
  std::string names;
  for (const Name& known : kNames) names += (names.empty() ? "" : ", ") + std::string(known.name);
  return names;
}

std::string_view safetensors_dtype_name(at::ScalarType dtype, const std::string& tensor) {
  for (const Name& known : kNames) {
    if (known.dtype == dtype) return known.name;
  }
  throw UserError(Mistake{tensor, concat("a dtype of ", safetensors_dtype_names()), c10::toString(dtype),
                          "safetensors cannot hold it"});
}

}  // namespace motley
