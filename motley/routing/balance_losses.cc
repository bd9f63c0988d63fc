#include "motley/routing/balance_losses.h"

#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>

#include <algorithm>

#include "motley/ops/zero_experts.h"

namespace motley {
namespace {

// Mean over the tokens that count of values [T, ...]. The divisor stays on the device.
at::Tensor masked_mean(const at::Tensor& values, const at::Tensor& token_mask) {
  if (!token_mask.defined()) return values.sum(0).div(std::max<int64_t>(values.size(0), 1));
  const at::Tensor mask = values.dim() == 2 ? token_mask.unsqueeze(1) : token_mask;
  return values.masked_fill(mask.logical_not(), 0).sum(0).div(token_mask.sum().clamp_min(1));
}

at::Tensor choice_share(const at::Tensor& assigned, int64_t num_tokens, const at::Tensor& token_mask) {
  if (!token_mask.defined()) return assigned.div(std::max<int64_t>(num_tokens, 1));
  return assigned.div(token_mask.sum().clamp_min(1));
}

// AdaMoE Eq. 6: it does not matter which of the null experts a token takes, only how many.
at::Tensor mean_over_zero_experts(const GateOptions& options, const at::Tensor& share) {
  at::Tensor is_zero = at::full({options.num_slots()}, false, share.options().dtype(at::kBool));
  for (int64_t z = 0; z < options.num_zero_experts(); ++z) {
    if (options.zero_experts[z] == ZeroExpertKind::kZero) is_zero[options.num_experts + z].fill_(true);
  }
  const at::Tensor mean = share.masked_fill(is_zero.logical_not(), 0).sum().div(is_zero.sum());
  return share.masked_fill(is_zero, 0).add(is_zero.to(share.scalar_type()).mul(mean));
}

}  // namespace

at::Tensor balance_loss(const GateOptions& options, const at::Tensor& assigned, const at::Tensor& scores,
                        const at::Tensor& token_mask) {
  const at::Tensor f = choice_share(assigned, scores.size(0), token_mask);
  const at::Tensor p = masked_mean(scores, token_mask);
  const double num_slots = static_cast<double>(options.num_slots());
  switch (options.balance_loss) {
    case BalanceLoss::kSwitch:
      return f.mul(p).sum().mul(num_slots);
    case BalanceLoss::kHeterogeneous: {
      at::Tensor eta = at::full({options.num_slots()}, options.tau, f.options());
      eta.narrow(0, 0, options.num_experts).fill_(1.0);
      return eta.mul(f).mul(p).sum();
    }
    case BalanceLoss::kAdaMoe:
      return mean_over_zero_experts(options, f).mul(p).sum().mul(num_slots);
    case BalanceLoss::kNone:
      break;
  }
  TORCH_INTERNAL_ASSERT(false, "balance_loss called without a balance loss");
}

at::Tensor router_z_loss(const at::Tensor& logits, const at::Tensor& token_mask) {
  return masked_mean(logits.logsumexp(1).square(), token_mask);
}

at::Tensor wanted_share(const GateOptions& options) {
  at::Tensor share = at::ones({options.num_slots()}, at::kFloat);
  share.narrow(0, 0, options.num_experts).fill_(options.tau);
  return share.div(share.sum());
}

}  // namespace motley
