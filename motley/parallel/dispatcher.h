// The Dispatcher seam: brings tokens to the ranks of their experts and partial sums back.
// Sequence of one layer: start_dispatch, finish_dispatch, (experts), start_combine, finish_combine.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

namespace motley {

// Tokens as they stand on the rank that computes: each token once, with the slots that are here.
struct DispatchedTokens {
  at::Tensor x;        // [T', D]
  at::Tensor slots;    // [T', K] int32, -1 for experts that are not here
  at::Tensor weights;  // [T', K] fp32
};

class Dispatcher {
 public:
  // State of one layer's exchange between its phases; owned by the caller, finished exactly once.
  class Exchange {
   public:
    virtual ~Exchange() = default;
  };

  virtual ~Dispatcher() = default;
  virtual std::unique_ptr<Exchange> start_dispatch(const at::Tensor& x, const at::Tensor& slots,
                                                   const at::Tensor& weights) = 0;
  virtual DispatchedTokens finish_dispatch(Exchange& exchange) = 0;
  // partial: this rank's expert sums [T', D], fp32 or x's dtype.
  virtual void start_combine(Exchange& exchange, const at::Tensor& partial) = 0;
  // y [T, D] in x's dtype: partial sums by ascending rank and `local` [T, D] fp32 (the zero-computation
  // experts' part, undefined for none), added in fp32 and rounded once.
  virtual at::Tensor finish_combine(Exchange& exchange, const at::Tensor& local) = 0;
  // The dtype in which the experts' partial sums are wanted for tokens of this dtype.
  virtual at::ScalarType partial_dtype(at::ScalarType token_dtype, bool has_local_part) const = 0;
  // Whether finish_dispatch hands on the very tokens that start_dispatch got, so that the routing plan can be
  // made, and experts fetched, at once.
  virtual bool keeps_tokens() const { return false; }
};

}  // namespace motley
