#include <c10/util/Exception.h>

#include "motley/infer/decode_graph.h"

namespace motley {

std::unique_ptr<DecodeGraph> make_decode_graph(CausalLm&, KvCache&, const std::vector<int64_t>&) {
  TORCH_CHECK(false, "[decode] this build has no CUDA");
}

}  // namespace motley
