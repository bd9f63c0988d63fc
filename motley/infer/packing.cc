#include "motley/infer/packing.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "motley/base/error.h"

namespace motley {

PackedBatch pack(const std::vector<std::vector<int64_t>>& sequences,
                 const std::vector<int64_t>& first_positions) {
  PackedBatch batch;
  batch.sequence_offset = {0};
  for (const auto& sequence : sequences) {
    batch.sequence_offset.push_back(batch.sequence_offset.back() + static_cast<int64_t>(sequence.size()));
  }
  batch.ids = at::empty({batch.sequence_offset.back()}, at::kLong);
  batch.positions = at::empty_like(batch.ids);
  auto* ids = batch.ids.mutable_data_ptr<int64_t>();
  auto* positions = batch.positions.mutable_data_ptr<int64_t>();
  for (size_t b = 0; b < sequences.size(); ++b) {
    int64_t position = first_positions.empty() ? 0 : first_positions[b];
    for (const int64_t id : sequences[b]) {
      *ids++ = id;
      *positions++ = position++;
    }
  }
  return batch;
}

void check_prompts(const CausalLm& model, const std::vector<std::vector<int64_t>>& prompts,
                   const std::string& name) {
  for (size_t i = 0; i < prompts.size(); ++i) {
    const std::string where = concat(name, " ", i);
    const auto length = static_cast<int64_t>(prompts[i].size());
    if (length == 0) throw UserError(Mistake{where, "at least one token", "none", {}});
    if (length > model.max_positions()) {
      throw UserError(Mistake{where,
                              concat("at most the model's ", model.max_positions(), " positions"),
                              concat(length, " tokens"),
                              {}});
    }
    for (int64_t t = 0; t < length; ++t) {
      if (prompts[i][t] < 0 || prompts[i][t] >= model.vocab_size()) {
        throw UserError(Mistake{concat(where, ", token ", t),
                                concat("an id of 0 to ", model.vocab_size() - 1),
                                concat(prompts[i][t]),
                                {}});
      }
    }
  }
}

}  // namespace motley
