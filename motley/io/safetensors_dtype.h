// Names of dtypes in safetensors headers.
#pragma once

#include <c10/core/ScalarType.h>

#include <optional>
#include <string>
#include <string_view>

namespace motley {

std::optional<at::ScalarType> safetensors_dtype(std::string_view name);
std::string safetensors_dtype_names();  // "BOOL, U8, ..."
// Throws UserError naming the tensor when the format has no such dtype.
std::string_view safetensors_dtype_name(at::ScalarType dtype, const std::string& tensor);

}  // namespace motley
