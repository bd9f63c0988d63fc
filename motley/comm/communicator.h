// The Communicator seam: collectives between ranks. A rank is a process or, with the local
// implementation, a thread of one process. All ranks call in the same order. Tensors are contiguous.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace motley {

// A collective under way; wait() returns once its result may be read. Destroying it waits too.
class PendingCollective {
 public:
  virtual ~PendingCollective() = default;
  virtual void wait() = 0;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  virtual void barrier() = 0;
  // Rows of `send` [sum(send_rows), ...] go to ranks in order; returns once sizes are checked.
  // receive [sum(receive_rows), ...] is filled by ascending rank. Zero rows are allowed.
  virtual std::unique_ptr<PendingCollective> all_to_all(const at::Tensor& send,
                                                        const std::vector<int64_t>& send_rows,
                                                        const at::Tensor& receive,
                                                        const std::vector<int64_t>& receive_rows) = 0;
  // receive [sum(rows), ...]: every rank's `send`, by ascending rank; rows may differ between ranks.
  virtual std::unique_ptr<PendingCollective> all_gather(const at::Tensor& send, const at::Tensor& receive,
                                                        const std::vector<int64_t>& rows) = 0;
  // receive [rows[rank], ...]: this rank's part of the sum of all `send` [sum(rows), ...], added in fp32
  // by ascending rank.
  virtual std::unique_ptr<PendingCollective> reduce_scatter(const at::Tensor& send, const at::Tensor& receive,
                                                            const std::vector<int64_t>& rows) = 0;
  // In place; added in fp32 by ascending rank, the same bits on every rank.
  virtual std::unique_ptr<PendingCollective> all_reduce(const at::Tensor& tensor) = 0;
  virtual std::unique_ptr<PendingCollective> broadcast(const at::Tensor& tensor, int root) = 0;
};

}  // namespace motley
