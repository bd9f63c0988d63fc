#include "motley/parallel/local_dispatcher.h"

#include <c10/util/Exception.h>

namespace motley {
namespace {

struct LocalExchange : Dispatcher::Exchange {
  DispatchedTokens tokens;
  at::ScalarType dtype = at::kFloat;
  at::Tensor partial;
};

LocalExchange& local(Dispatcher::Exchange& exchange) { return dynamic_cast<LocalExchange&>(exchange); }

}  // namespace

std::unique_ptr<Dispatcher::Exchange> LocalDispatcher::start_dispatch(const at::Tensor& x,
                                                                      const at::Tensor& slots,
                                                                      const at::Tensor& weights) {
  TORCH_CHECK(
      x.dim() == 2 && slots.dim() == 2 && slots.size(0) == x.size(0) && weights.sizes() == slots.sizes(),
      "[dispatch] expected x [T, D], slots [T, K] and weights [T, K], got ", x.sizes(), ", ", slots.sizes(),
      " and ", weights.sizes());
  auto exchange = std::make_unique<LocalExchange>();
  exchange->tokens = {x, slots, weights};
  exchange->dtype = x.scalar_type();
  return exchange;
}

DispatchedTokens LocalDispatcher::finish_dispatch(Exchange& exchange) {
  return std::move(local(exchange).tokens);
}

void LocalDispatcher::start_combine(Exchange& exchange, const at::Tensor& partial) {
  local(exchange).partial = partial;
}

at::Tensor LocalDispatcher::finish_combine(Exchange& exchange, const at::Tensor& local_part) {
  LocalExchange& state = local(exchange);
  TORCH_CHECK(state.partial.defined(), "[combine] finish_combine expected start_combine before it");
  const at::Tensor partial = std::move(state.partial);
  if (!local_part.defined()) return partial.to(state.dtype);
  TORCH_CHECK(local_part.sizes() == partial.sizes() && local_part.scalar_type() == at::kFloat,
              "[combine] expected a local part ", partial.sizes(), " in fp32, got ", local_part.sizes(),
              " in ", local_part.scalar_type());
  return partial.to(at::kFloat).add(local_part).to(state.dtype);
}

}  // namespace motley
