// Copies published tensors into a model's own memory, and knows which were taken.
#pragma once

#include <ATen/core/Tensor.h>

#include <set>
#include <string>
#include <vector>

#include "motley/io/safetensors.h"

namespace motley {

class CheckpointReader {
 public:
  explicit CheckpointReader(const TensorFolder& files) : files_(files) {}

  const TensorFolder& files() const { return files_; }
  // Converts to the destination's dtype. Throws UserError naming the tensor: missing, of another shape, or
  // not of floating point.
  void copy_into(const std::string& published_name, const at::Tensor& destination);
  std::vector<std::string> unused() const;

 private:
  const TensorFolder& files_;
  std::set<std::string> used_;
};

}  // namespace motley
