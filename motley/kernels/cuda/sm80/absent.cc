// Stands in for the family of cards before Hopper until its kernels are here: says so when called.
#include <stdexcept>

#include "motley/kernels/cuda/expert_products.h"

namespace motley::cuda::sm80 {
namespace {
[[noreturn]] void absent() {
  throw std::runtime_error("[cuda] this build has kernels for Hopper cards (compute capability 9.0) only");
}
}  // namespace

void expert_up(const ExpertShape&, const ExpertPlan&, const UpProduct&, cudaStream_t) { absent(); }
void expert_dhidden(const ExpertShape&, const ExpertPlan&, const HiddenGradient&, cudaStream_t) { absent(); }
void expert_matmul(const ExpertShape&, const ExpertPlan&, const RowsProduct&, cudaStream_t) { absent(); }
void expert_outer(const ExpertShape&, const ExpertPlan&, const OuterProduct&, cudaStream_t) { absent(); }

}  // namespace motley::cuda::sm80
