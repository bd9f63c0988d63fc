// Seconds by part of a model, forward and backward, from the marks of motley/ops/part.h.
#pragma once

#include <c10/core/Device.h>

#include <map>
#include <memory>
#include <string>
#include <utility>

namespace motley::bench {

struct PartTime {
  double forward = 0, backward = 0;  // seconds, without the parts within it
};

// Listens on the thread that made it, as long as it lives, and on the one that autograd runs backward on for
// it. On a GPU it waits at every boundary, so that parts are told apart; that costs more time than they take
// together.
class PartTimes {
 public:
  explicit PartTimes(c10::Device device = c10::kCPU);
  ~PartTimes();
  PartTimes(const PartTimes&) = delete;

  // What was measured since the last call; "other" is what no part claims. Call it between steps.
  std::map<std::string, PartTime> take();

 private:
  struct Listener;
  std::unique_ptr<Listener> listener_;
};

}  // namespace motley::bench
