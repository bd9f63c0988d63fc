#include "motley/routing/select_top_k.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sort.h>

namespace motley {
namespace {

// Keeps the best so far in order; most slots fail the first comparison once k are seen.
void select_row(const float* scores, int64_t num_slots, int64_t k, int64_t* chosen) {
  for (int64_t slot = 0; slot < num_slots; ++slot) {
    const float score = scores[slot];
    int64_t place = slot;
    if (slot >= k) {
      if (!(score > scores[chosen[k - 1]])) continue;
      place = k - 1;
    }
    for (; place > 0 && score > scores[chosen[place - 1]]; --place) chosen[place] = chosen[place - 1];
    chosen[place] = slot;
  }
}

}  // namespace

at::Tensor select_top_k(const at::Tensor& scores, int64_t k) {
  TORCH_CHECK(scores.dim() == 2 && scores.scalar_type() == at::kFloat,
              "[select_top_k] expected scores [T, S] in fp32, got ", scores.sizes(), " in ",
              scores.scalar_type());
  const int64_t num_tokens = scores.size(0), num_slots = scores.size(1);
  TORCH_CHECK(k >= 1 && k <= num_slots, "[select_top_k] expected k in 1 .. ", num_slots, ", got ", k);
  if (!scores.is_cpu()) {
    return std::get<1>(at::sort(scores.detach(), /*stable=*/true, /*dim=*/1, /*descending=*/true))
        .narrow(1, 0, k);
  }
  const at::Tensor rows = scores.detach().contiguous();
  at::Tensor chosen = at::empty({num_tokens, k}, rows.options().dtype(at::kLong));
  const float* from = rows.const_data_ptr<float>();
  int64_t* to = chosen.mutable_data_ptr<int64_t>();
  const int64_t grain = 1 + 65536 / num_slots;
  at::parallel_for(0, num_tokens, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) select_row(from + t * num_slots, num_slots, k, to + t * k);
  });
  return chosen;
}

}  // namespace motley
