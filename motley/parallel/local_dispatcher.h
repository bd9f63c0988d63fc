// The default dispatcher: tokens stay where they are.
#pragma once

#include "motley/parallel/dispatcher.h"

namespace motley {

// Hands tokens on as they are; differentiable because it only hands tensors on, adds and rounds.
class LocalDispatcher : public Dispatcher {
 public:
  std::unique_ptr<Exchange> start_dispatch(const at::Tensor& x, const at::Tensor& slots,
                                           const at::Tensor& weights) override;
  DispatchedTokens finish_dispatch(Exchange& exchange) override;
  void start_combine(Exchange& exchange, const at::Tensor& partial) override;
  at::Tensor finish_combine(Exchange& exchange, const at::Tensor& local) override;
  // fp32 where a local part is still to be added, so that the sum is rounded once.
  at::ScalarType partial_dtype(at::ScalarType token_dtype, bool has_local_part) const override {
    return has_local_part ? at::kFloat : token_dtype;
  }
  bool keeps_tokens() const override { return true; }
};

}  // namespace motley
