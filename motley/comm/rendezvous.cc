#include "motley/comm/rendezvous.h"

#include <c10/util/Exception.h>

namespace motley {

Rendezvous::Rendezvous(int num_ranks) {
  TORCH_CHECK(num_ranks >= 1, "[local group] expected at least 1 rank, got ", num_ranks);
  offers_.resize(num_ranks);
}

void Rendezvous::refuse(int rank) const {
  TORCH_CHECK(failure_.empty(), "[local group] rank ", rank, " stops because the group failed: ", failure_);
  TORCH_CHECK(false, "[local group] rank ", rank, " needs rank ", left_, ", which has left the group");
}

void Rendezvous::expect_open(int rank) {
  const std::lock_guard lock(mutex_);
  if (!open()) refuse(rank);
}

void Rendezvous::arrive(int rank) {
  std::unique_lock lock(mutex_);
  if (!open()) refuse(rank);
  const int64_t generation = generation_;
  if (++arrived_ == size()) {
    arrived_ = 0;
    ++generation_;
    changed_.notify_all();
    return;
  }
  changed_.wait(lock, [&] { return generation_ != generation || !open(); });
  // A rank may leave right after the last arrival; that is not this collective's loss.
  if (generation_ == generation) refuse(rank);
}

void Rendezvous::fail(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (failure_.empty()) failure_ = reason;
  changed_.notify_all();
}

void Rendezvous::leave(int rank) {
  const std::lock_guard lock(mutex_);
  if (left_ < 0) left_ = rank;
  changed_.notify_all();
}

}  // namespace motley
