// Notices SIGTERM and SIGINT (Ctrl-C), so that a run can save before it stops.
#pragma once

namespace motley {

// While one lives, the first such signal is only noted; a second one ends the process at once (checkpoints
// are atomic, so nothing is lost but the unfinished one). One at a time in a process.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  int received() const;  // the signal, or 0
};

}  // namespace motley
