// What a gate is asked to do. Free of torch; field names are the configuration's keys where it has one.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace motley {

enum class ZeroExpertKind : int64_t;  // motley/ops/zero_experts.h

enum class Scoring {
  kSoftmax,
  // The released MoE++ code, where its paper (arXiv 2410.07348) has a plain softmax: each token's logits are
  // divided by their own standard deviation over the slots (unbiased) and multiplied by gate_norm_std.
  kStandardisedSoftmax,
};

// What is done to a token's K scores after selection.
enum class WeightNormalisation {
  kNone,  // the scores as they are (Switch, the MoE++ paper, LongCat)
  kTopK,  // divided by their sum (norm_topk_prob)
  // Zero experts get weight 0, the others are divided by their sum; a token that chose only zero experts
  // gets weights 0. The released MoE++ code, and AdaMoE's normalisation over true experts.
  kTopKExceptZero,
};

// f_i: share of tokens that chose slot i, before drops, summing to K; P_i: mean score of slot i.
enum class BalanceLoss {
  kNone,
  kSwitch,         // S * sum f_i P_i (Switch Transformer, Eq. 4-6); K when balanced
  kHeterogeneous,  // sum eta_i f_i P_i, eta 1 for FFN experts and tau for the others (MoE++, Eq. 7)
  kAdaMoe,         // S * sum f~_i P_i, f~ the mean over the zero experts for each of them (AdaMoE, Eq. 6)
};

// Which T stands in the capacity, see capacity_factor.
enum class CapacityUnit {
  kAssignments,  // T * K: all capacities together hold capacity_factor times what is assigned
  kTokens,       // T: MoE++ Eq. 8 as printed, which with K = 2 has room for about half of the assignments
};

struct GateOptions {
  int64_t hidden_size = 0;          // D, required
  int64_t num_experts = 0;          // E, required: experts with a feed-forward network
  int64_t num_experts_per_tok = 0;  // K, required
  // Slots E, E + 1, ...: the zero-computation experts, S = E + their number.
  std::vector<ZeroExpertKind> zero_experts;

  Scoring scoring = Scoring::kSoftmax;
  double gate_norm_std = 1.0;  // kStandardisedSoftmax only
  WeightNormalisation weight_normalisation = WeightNormalisation::kNone;
  double routed_scaling_factor = 1.0;  // multiplies the weights of all slots, last
  // logits_j = W_j x + W_g_j logits_{j-1} (MoE++ Eq. 6); without previous logits the second term is left out.
  bool gating_residual = false;

  BalanceLoss balance_loss = BalanceLoss::kNone;
  double balance_loss_coef = 0.0;   // required > 0 with a balance loss
  double router_z_loss_coef = 0.0;  // mean of logsumexp(logits)^2 (ST-MoE, Eq. 5); 0: none
  // Balancing without a loss (DeepSeek-V3): a bias per slot is added to the scores for selection only, and
  // update() moves it by this much towards the slots with too little load. 0: never moved.
  bool selection_bias = false;
  double selection_bias_update_rate = 0.0;

  // tau of MoE++: the wanted load of an FFN expert over that of a zero-computation expert. Used by
  // kHeterogeneous, capacity_factor and selection_bias_update_rate; 1: all slots alike.
  double tau = 1.0;

  // Dropless when empty. Else FFN experts keep at most ceil(factor tau T / (tau E + Z)) assignments and the
  // others ceil(factor T / (tau E + Z)) (MoE++ Eq. 8; without zero experts ceil(factor T / E) as in GShard).
  // Earlier tokens come first; a dropped assignment gets slot -1 and weight 0, after normalisation.
  // T counts the tokens that the mask lets through.
  std::optional<double> capacity_factor;
  CapacityUnit capacity_unit = CapacityUnit::kAssignments;
  bool capacity_in_inference = false;  // drops also where GateInput::training is false

  int64_t num_zero_experts() const { return static_cast<int64_t>(zero_experts.size()); }
  int64_t num_slots() const { return num_experts + num_zero_experts(); }
};

// Throws UserError naming the field for values out of range, contradictions, and options without effect.
void check(const GateOptions& options);

}  // namespace motley
