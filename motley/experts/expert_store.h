// The ExpertStore seam: where expert weights live and how they reach the compute node.
#pragma once

#include <memory>
#include <string>

#include "motley/ops/expert_weights.h"
#include "motley/ops/parameters.h"
#include "motley/ops/routing_plan.h"

namespace motley {

class ExpertStore {
 public:
  virtual ~ExpertStore() = default;
  // Starts to fetch what a coming acquire of this plan will need. May be called before acquire, or never.
  // A store that wants counts on the host starts its copy of plan.expert_offset here.
  virtual void prefetch(const RoutingPlan& plan) {}
  // The weights for the rows of this plan in one or more waves; valid through backward.
  virtual std::shared_ptr<WeightSource> acquire(const RoutingPlan& plan) = 0;
  // All weights, where they stay in place and no plan decides what is fetched: inference on a GPU then goes
  // without a plan. Else null.
  virtual const ExpertWeights* resident() const { return nullptr; }
  virtual int64_t num_experts() const = 0;
  virtual void visit(const std::string& prefix, const TensorVisitor& visitor) = 0;
};

}  // namespace motley
