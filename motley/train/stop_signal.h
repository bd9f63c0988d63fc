// Notices SIGTERM and SIGINT (Ctrl-C), so that a run can save before it stops.
#pragma once

#include <csignal>

namespace motley {

// While one lives, the first such signal is only noted; a second one, of either kind, ends the process at
// once (checkpoints are atomic, so nothing is lost but the unfinished one). A signal that was ignored before
// stays ignored. One at a time in a process.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  int received() const;  // the signal, or 0

 private:
  struct sigaction before_[2] = {};
};

}  // namespace motley
