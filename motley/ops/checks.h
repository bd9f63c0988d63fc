// Checks of the operators' arguments, with errors that name the argument, what was expected and what
// was found.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/DispatchKeySet.h>

#include <initializer_list>
#include <optional>

namespace motley::ops {

// The same values, contiguous and 16-byte aligned; a copy only where they are not.
at::Tensor dense(const at::Tensor& tensor);
std::optional<at::Tensor> dense_or_none(const std::optional<at::Tensor>& tensor);  // none for undefined, too

// What comes behind the checks, which are registered under BackendSelect.
c10::DispatchKeySet backend(c10::DispatchKeySet keys);

class ArgumentChecks {
 public:
  // `first` gives the dtype and device that others must have.
  ArgumentChecks(const char* op, const char* name, const at::Tensor& first);

  at::ScalarType dtype() const { return dtype_; }

  // `sizes` with -1 for any; `shape` says them in letters.
  void sizes(const char* name, const at::Tensor& tensor, at::IntArrayRef sizes, const char* shape) const;
  // Sizes, and first's dtype and device.
  void values(const char* name, const at::Tensor& tensor, at::IntArrayRef sizes, const char* shape) const;
  // Sizes, device and one given dtype.
  void typed(const char* name, const at::Tensor& tensor, at::ScalarType dtype, at::IntArrayRef sizes,
             const char* shape) const;
  // values() of three dimensions with any stride between the first, else contiguous.
  void expert_blocks(const char* name, const at::Tensor& tensor, at::IntArrayRef sizes,
                     const char* shape) const;
  // An output that cannot be copied: must be contiguous and 16-byte aligned as it is. Counts as a change
  // of the tensor for autograd.
  void written(const char* name, const at::Tensor& tensor) const;
  // int32 values in [low, high); looked at on the CPU only, where that needs no synchronisation.
  void integers(const char* name, const at::Tensor& tensor, int64_t low, int64_t high) const;
  // [E + 1] int32 ascending from 0 to at most max_rows.
  void offsets(const char* name, const at::Tensor& tensor, int64_t max_rows) const;

  // Of a result that is rounded once: fp32 or first's.
  void output_dtype(at::ScalarType dtype) const;

  // For operators without a derivative: none of these may ask for one.
  void not_differentiable(std::initializer_list<at::Tensor> tensors) const;

  const char* op() const { return op_; }

 private:
  const char* op_;
  const char* name_;
  at::ScalarType dtype_;
  at::Device device_;
};

}  // namespace motley::ops
