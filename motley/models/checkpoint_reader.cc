#include "motley/models/checkpoint_reader.h"

#include "motley/base/error.h"

namespace motley {

void CheckpointReader::copy_into(const std::string& published_name, const at::Tensor& destination) {
  const at::Tensor source = files_.tensor(published_name, destination.sizes());
  if (!source.is_floating_point()) {
    throw UserError(Mistake{concat(files_.folder().string(), ": ", published_name), "a floating-point tensor",
                            c10::toString(source.scalar_type()), "quantised weights are not supported"});
  }
  destination.copy_(source);
  used_.insert(published_name);
}

std::vector<std::string> CheckpointReader::unused() const {
  std::vector<std::string> unused;
  for (const std::string& name : files_.names()) {
    if (!used_.contains(name)) unused.push_back(name);
  }
  return unused;
}

}  // namespace motley
