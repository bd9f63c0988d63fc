// Where the threads of a local group meet.
#pragma once

#include <ATen/core/Tensor.h>

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace motley {

// What a rank brings to a collective; read by the others between two arrivals.
struct Offer {
  const char* collective = "";
  at::Tensor send;
  at::Tensor receive;                 // undefined where the collective is in place
  std::vector<int64_t> send_rows;     // all_to_all: by destination; all_gather, reduce_scatter: by rank
  std::vector<int64_t> receive_rows;  // all_to_all only
  int root = 0;                       // broadcast only
};

class Rendezvous {
 public:
  explicit Rendezvous(int num_ranks);

  int size() const { return static_cast<int>(offers_.size()); }
  // An offer may be written by its rank before it arrives, and read by all until they arrive again.
  Offer& offer(int rank) { return offers_[rank]; }
  const std::vector<Offer>& offers() const { return offers_; }

  // Throws c10::Error once any rank has failed or left. To be called before an offer is written: after a
  // failure the others may still be reading.
  void expect_open(int rank);
  // Returns when all ranks have arrived; throws as expect_open does, also while it waits.
  void arrive(int rank);
  // The first call counts; all who wait or arrive later throw.
  void fail(const std::string& reason);
  // This rank will not arrive again; those who wait for it fail.
  void leave(int rank);

 private:
  [[noreturn]] void refuse(int rank) const;
  bool open() const { return failure_.empty() && left_ < 0; }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Offer> offers_;
  int arrived_ = 0;
  int64_t generation_ = 0;
  int left_ = -1;        // the first rank that left
  std::string failure_;  // empty: none
};

}  // namespace motley
