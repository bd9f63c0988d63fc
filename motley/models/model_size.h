// The sizes of a model that are known from its configuration alone.
#pragma once

#include <cstdint>

namespace motley {

struct ModelSize {
  int64_t vocab_size = 0, hidden_size = 0, num_layers = 0;
};

}  // namespace motley
