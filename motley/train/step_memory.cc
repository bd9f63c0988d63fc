#include "motley/train/step_memory.h"

#include "motley/base/concat.h"
#include "motley/base/memory.h"

namespace motley {
namespace {

// Of width D in a layer: both norms keep what they take, and the projections and the gate what the norms
// give. A layer that is run again keeps what it takes.
constexpr double kKept = 4, kKeptForRecomputing = 1;

}  // namespace

double least_step_bytes(const RunConfig& config, const ModelSize& model) {
  const TrainOptions& train = config.train;
  const auto tokens = static_cast<double>(train.batch_size * config.data.sequence_length);
  const double kept = train.activation_checkpointing ? kKeptForRecomputing : kKept;
  const double layers = static_cast<double>(model.num_layers) * kept *
                        static_cast<double>(model.hidden_size) *
                        static_cast<double>(c10::elementSize(train.dtype));
  const double logits = static_cast<double>(model.vocab_size) * sizeof(float);
  return tokens * (layers + logits);
}

void require_step_memory(const RunConfig& config, const ModelSize& model) {
  require_memory(
      place_of(config, "train.batch_size"),
      concat("activations of batch_size x data.sequence_length = ",
             config.train.batch_size * config.data.sequence_length, " tokens"),
      least_step_bytes(config, model),
      concat("lower train.batch_size or data.sequence_length",
             config.train.activation_checkpointing ? "" : ", or set train.activation_checkpointing"));
}

}  // namespace motley
