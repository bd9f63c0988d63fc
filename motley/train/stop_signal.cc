#include "motley/train/stop_signal.h"

#include <csignal>
#include <iterator>

namespace motley {
namespace {

constexpr int kSignals[] = {SIGTERM, SIGINT};

// A signal handler can reach nothing but a global.
volatile std::sig_atomic_t received_signal = 0;

// All of it may be called in a handler. The second signal, whichever it is, ends the process once this
// returns.
extern "C" void note_signal(int signal) {
  if (received_signal == 0) {
    received_signal = signal;
    return;
  }
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

}  // namespace

StopSignal::StopSignal() {
  received_signal = 0;
  struct sigaction action = {};
  action.sa_handler = note_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < std::size(kSignals); ++i) {
    sigaction(kSignals[i], nullptr, &before_[i]);
    // What the parent had this process ignore (nohup, a background job of a shell) stays ignored.
    if (before_[i].sa_handler != SIG_IGN) sigaction(kSignals[i], &action, nullptr);
  }
}

StopSignal::~StopSignal() {
  for (size_t i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &before_[i], nullptr);
}

int StopSignal::received() const { return received_signal; }

}  // namespace motley
