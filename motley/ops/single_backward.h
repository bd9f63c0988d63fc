#pragma once

#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

namespace motley::ops {

// Backward runs with gradients enabled only under create_graph, which asks for derivatives of our
// backwards; they have none.
inline void check_single_backward(const char* op) {
  TORCH_CHECK(!c10::GradMode::is_enabled(), "[", op,
              "] expected a first backward, got create_graph=True: double backward is not supported");
}

}  // namespace motley::ops
