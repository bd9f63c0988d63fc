#include "motley/ops/checks.h"

#include <ATen/ops/clone.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdint>

namespace motley::ops {
namespace {

constexpr uintptr_t kAlignment = 16;

bool aligned(const at::Tensor& tensor) {
  return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % kAlignment == 0;
}

std::string shown(at::IntArrayRef sizes) {
  std::string text = "[";
  for (size_t i = 0; i < sizes.size(); ++i) {
    text += (i == 0 ? "" : ", ") + (sizes[i] < 0 ? std::string("any") : std::to_string(sizes[i]));
  }
  return text + "]";
}

}  // namespace

at::Tensor dense(const at::Tensor& tensor) {
  if (tensor.is_contiguous()) {
    return aligned(tensor) || tensor.numel() == 0 ? tensor : tensor.clone();
  }
  return tensor.contiguous();
}

std::optional<at::Tensor> dense_or_none(const std::optional<at::Tensor>& tensor) {
  return tensor.has_value() && tensor->defined() ? std::optional(dense(*tensor)) : std::nullopt;
}

c10::DispatchKeySet backend(c10::DispatchKeySet keys) {
  return keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, c10::DispatchKey::BackendSelect);
}

ArgumentChecks::ArgumentChecks(const char* op, const char* name, const at::Tensor& first)
    : op_(op), name_(name), dtype_(first.scalar_type()), device_(first.device()) {
  const bool half_too = !first.is_cpu();
  TORCH_CHECK(dtype_ == at::kFloat || dtype_ == at::kBFloat16 || (half_too && dtype_ == at::kHalf), "[", op_,
              "] expected ", name, " of dtype Float or BFloat16", half_too ? " or Half" : "", ", got ",
              dtype_);
}

void ArgumentChecks::sizes(const char* name, const at::Tensor& tensor, at::IntArrayRef sizes,
                           const char* shape) const {
  TORCH_CHECK(tensor.defined(), "[", op_, "] expected ", name, " ", shape, ", got an undefined tensor");
  const bool same = std::ranges::equal(
      tensor.sizes(), sizes, [](int64_t found, int64_t wanted) { return wanted < 0 || found == wanted; });
  TORCH_CHECK(same, "[", op_, "] expected ", name, " ", shape, " = ", shown(sizes), ", got ",
              shown(tensor.sizes()));
  TORCH_CHECK(tensor.device() == device_, "[", op_, "] expected ", name, " on ", device_, ", got ",
              tensor.device());
}

void ArgumentChecks::typed(const char* name, const at::Tensor& tensor, at::ScalarType dtype,
                           at::IntArrayRef wanted, const char* shape) const {
  sizes(name, tensor, wanted, shape);
  TORCH_CHECK(tensor.scalar_type() == dtype, "[", op_, "] expected ", name, " of dtype ", dtype, ", got ",
              tensor.scalar_type());
}

void ArgumentChecks::values(const char* name, const at::Tensor& tensor, at::IntArrayRef wanted,
                            const char* shape) const {
  typed(name, tensor, dtype_, wanted, shape);
}

void ArgumentChecks::expert_blocks(const char* name, const at::Tensor& tensor, at::IntArrayRef wanted,
                                   const char* shape) const {
  values(name, tensor, wanted, shape);
  const bool blocks = tensor.numel() == 0 || tensor[0].is_contiguous();
  TORCH_CHECK(blocks, "[", op_, "] expected ", name, " ", shape,
              " with each expert in one contiguous block, got strides ", shown(tensor.strides()),
              "; call contiguous() on it first");
  TORCH_CHECK(reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % tensor.element_size() == 0, "[", op_,
              "] expected ", name, " aligned to its ", tensor.element_size(),
              "-byte elements, got an odd address");
}

void ArgumentChecks::written(const char* name, const at::Tensor& tensor) const {
  TORCH_CHECK(tensor.is_contiguous(), "[", op_, "] expected ", name,
              ", which is written, to be contiguous, got sizes ", shown(tensor.sizes()), " with strides ",
              shown(tensor.strides()));
  TORCH_CHECK(tensor.numel() == 0 || aligned(tensor), "[", op_, "] expected ", name,
              ", which is written, at an address divisible by ", kAlignment, ", got a view at element ",
              tensor.storage_offset(), " of its storage");
  tensor.unsafeGetTensorImpl()->bump_version();
}

void ArgumentChecks::output_dtype(at::ScalarType dtype) const {
  TORCH_CHECK(dtype == at::kFloat || dtype == dtype_, "[", op_, "] expected out_dtype Float or that of ",
              name_, ", ", dtype_, ", got ", dtype);
}

void ArgumentChecks::not_differentiable(std::initializer_list<at::Tensor> tensors) const {
  if (!c10::GradMode::is_enabled()) {
    return;
  }
  for (const auto& tensor : tensors) {
    TORCH_CHECK(
        !tensor.defined() || !tensor.requires_grad(), "[", op_,
        "] expected tensors that require no gradient (or gradients disabled): it has no derivative, got one "
        "of sizes ",
        shown(tensor.sizes()), " that requires it");
  }
}

void ArgumentChecks::integers(const char* name, const at::Tensor& tensor, int64_t low, int64_t high) const {
  if (!tensor.is_cpu() || tensor.numel() == 0) {
    return;
  }
  const auto* begin = tensor.const_data_ptr<int32_t>();
  const auto [least, most] = std::minmax_element(begin, begin + tensor.numel());
  TORCH_CHECK(*least >= low && *most < high, "[", op_, "] expected values of ", name, " from ", low, " to ",
              high - 1, ", got ", *least < low ? *least : *most);
}

void ArgumentChecks::offsets(const char* name, const at::Tensor& tensor, int64_t max_rows) const {
  TORCH_CHECK(tensor.size(0) >= 1, "[", op_, "] expected ", name,
              " [E + 1] with at least one value, got none");
  if (!tensor.is_cpu()) {
    return;
  }
  const auto* begin = tensor.const_data_ptr<int32_t>();
  const auto* end = begin + tensor.numel();
  TORCH_CHECK(*begin == 0 && std::is_sorted(begin, end) && end[-1] <= max_rows, "[", op_, "] expected ", name,
              " [E + 1] to ascend from 0 to at most the ", max_rows, " rows of row_assignment, got ", *begin,
              " first and ", end[-1], " last");
}

}  // namespace motley::ops
