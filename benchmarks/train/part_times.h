// Seconds by part of a model, forward and backward, from the marks of motley/ops/part.h.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

namespace motley::bench {

struct PartTime {
  double forward = 0, backward = 0;  // seconds, without the parts within it
};

// Listens on the thread that made it, as long as it lives. Autograd on CPU runs backward on that thread.
class PartTimes {
 public:
  PartTimes();
  ~PartTimes();
  PartTimes(const PartTimes&) = delete;

  // What was measured since the last call; "other" is what no part claims. Call it between steps.
  std::map<std::string, PartTime> take();

 private:
  struct Listener;
  std::unique_ptr<Listener> listener_;
};

}  // namespace motley::bench
