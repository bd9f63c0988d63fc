#include "motley/comm/local_group.h"

#include <ATen/core/grad_mode.h>

#include <exception>
#include <mutex>
#include <thread>

#include "motley/comm/local_collectives.h"

namespace motley {
namespace {

class Done : public PendingCollective {
 public:
  void wait() override {}
};

class LocalCommunicator : public Communicator {
 public:
  LocalCommunicator(std::shared_ptr<Rendezvous> rendezvous, int rank)
      : rendezvous_(std::move(rendezvous)), rank_(rank) {}
  ~LocalCommunicator() override { rendezvous_->leave(rank_); }

  int rank() const override { return rank_; }
  int size() const override { return rendezvous_->size(); }

  void barrier() override { run({"barrier", {}, {}, {}, {}, 0}, nullptr); }
  std::unique_ptr<PendingCollective> all_to_all(const at::Tensor& send, const std::vector<int64_t>& send_rows,
                                                const at::Tensor& receive,
                                                const std::vector<int64_t>& receive_rows) override {
    return run({"all_to_all", send, receive, send_rows, receive_rows, 0}, local_all_to_all);
  }
  std::unique_ptr<PendingCollective> all_gather(const at::Tensor& send, const at::Tensor& receive,
                                                const std::vector<int64_t>& rows) override {
    return run({"all_gather", send, receive, rows, {}, 0}, local_all_gather);
  }
  std::unique_ptr<PendingCollective> reduce_scatter(const at::Tensor& send, const at::Tensor& receive,
                                                    const std::vector<int64_t>& rows) override {
    return run({"reduce_scatter", send, receive, rows, {}, 0}, local_reduce_scatter);
  }
  std::unique_ptr<PendingCollective> all_reduce(const at::Tensor& tensor) override {
    return run({"all_reduce", tensor, {}, {}, {}, 0}, local_all_reduce);
  }
  std::unique_ptr<PendingCollective> broadcast(const at::Tensor& tensor, int root) override {
    return run({"broadcast", tensor, {}, {}, {}, root}, local_broadcast);
  }

 private:
  using Copy = void (*)(const std::vector<Offer>&, int);

  // Offers are read until the second arrival, so no rank may touch its tensors before that.
  std::unique_ptr<PendingCollective> run(Offer offer, Copy copy) {
    const at::NoGradGuard no_grad;
    rendezvous_->expect_open(rank_);
    rendezvous_->offer(rank_) = std::move(offer);
    rendezvous_->arrive(rank_);
    try {
      check_offers(rendezvous_->offers());
      if (copy != nullptr) copy(rendezvous_->offers(), rank_);
    } catch (const c10::Error& error) {
      rendezvous_->fail(error.what_without_backtrace());
      throw;
    } catch (const std::exception& error) {
      rendezvous_->fail(error.what());
      throw;
    }
    rendezvous_->arrive(rank_);
    rendezvous_->offer(rank_) = {};  // keeps no tensor alive
    return std::make_unique<Done>();
  }

  std::shared_ptr<Rendezvous> rendezvous_;
  int rank_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_local_group(int num_ranks) {
  auto rendezvous = std::make_shared<Rendezvous>(num_ranks);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int rank = 0; rank < num_ranks; ++rank)
    ranks.push_back(std::make_unique<LocalCommunicator>(rendezvous, rank));
  return ranks;
}

void run_local_ranks(int num_ranks, const std::function<void(Communicator&)>& body) {
  auto ranks = make_local_group(num_ranks);
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < num_ranks; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        body(*ranks[rank]);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
      }
      ranks[rank].reset();  // whoever waits for this rank is told; after the error above is noted
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace motley
