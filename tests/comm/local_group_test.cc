#include "motley/comm/local_group.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <stdexcept>
#include <string>

namespace motley {
namespace {

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(LocalGroup, BarrierHoldsEveryRankUntilTheLastArrives) {
  std::atomic<int> arrived = 0;
  std::atomic<bool> early = false;
  run_local_ranks(4, [&](Communicator& comm) {
    for (int round = 1; round <= 50; ++round) {
      ++arrived;
      comm.barrier();
      if (arrived < 4 * round) early = true;
      comm.barrier();
    }
  });
  EXPECT_FALSE(early);
  EXPECT_EQ(arrived, 200);
}

// Rank s sends (s + r) % 3 rows to rank r, each row naming its sender and receiver.
TEST(LocalGroup, AllToAllMovesUnevenRowsInOrderOfRanks) {
  run_local_ranks(3, [](Communicator& comm) {
    const int self = comm.rank();
    std::vector<int64_t> send_rows, receive_rows;
    std::vector<float> sent, expected;
    for (int other = 0; other < 3; ++other) {
      const int64_t count = (self + other) % 3;
      send_rows.push_back(count);
      receive_rows.push_back(count);
      for (int64_t i = 0; i < count; ++i) {
        sent.insert(sent.end(), {static_cast<float>(self), static_cast<float>(10 * other + i)});
        expected.insert(expected.end(), {static_cast<float>(other), static_cast<float>(10 * self + i)});
      }
    }
    const at::Tensor send = at::tensor(sent).view({-1, 2});
    const at::Tensor receive = at::full(send.sizes(), -1.0f);
    comm.all_to_all(send, send_rows, receive, receive_rows)->wait();
    EXPECT_TRUE(at::equal(receive, at::tensor(expected).view({-1, 2}))) << "rank " << self;
  });
}

TEST(LocalGroup, AllGatherJoinsPartsOfDifferentSize) {
  run_local_ranks(3, [](Communicator& comm) {
    const int64_t self = comm.rank();
    const std::vector<int64_t> rows = {2, 0, 3};
    const at::Tensor send = at::full({rows[self], 1}, self, at::kLong);
    const at::Tensor receive = at::empty({5, 1}, at::kLong);
    comm.all_gather(send, receive, rows)->wait();
    const int64_t expected[] = {0, 0, 2, 2, 2};
    EXPECT_TRUE(at::equal(receive.flatten(), at::tensor(at::ArrayRef<int64_t>(expected))));
  });
}

TEST(LocalGroup, ReduceScatterGivesEachRankItsRowsOfTheSum) {
  run_local_ranks(2, [](Communicator& comm) {
    const at::Tensor send = at::arange(6, at::kFloat).view({3, 2}).mul(comm.rank() + 1);  // sum: 3 * arange
    const std::vector<int64_t> rows = {1, 2};
    const at::Tensor receive = at::empty({rows[comm.rank()], 2});
    comm.reduce_scatter(send, receive, rows)->wait();
    const at::Tensor expected = at::arange(6, at::kFloat).view({3, 2}).mul(3);
    EXPECT_TRUE(at::equal(receive, comm.rank() == 0 ? expected.narrow(0, 0, 1) : expected.narrow(0, 1, 2)));
  });
}

// 2^24 + 1 - 2^24 is 0 in fp32 from the left and 1 in any order that adds the big ones first.
TEST(LocalGroup, SumsAreTakenInFp32ByAscendingRank) {
  run_local_ranks(3, [](Communicator& comm) {
    const float parts[] = {16777216.0f, 1.0f, -16777216.0f};
    const at::Tensor tensor = at::full({7}, parts[comm.rank()]);
    comm.all_reduce(tensor)->wait();
    EXPECT_TRUE(at::equal(tensor, at::full({7}, 0.0f)));

    // 256 + 1 is no bf16 number; in bf16 steps the sum would stay at 256.
    const at::Tensor small = at::full({5}, comm.rank() == 0 ? 256.0 : 1.0, at::kBFloat16);
    comm.all_reduce(small)->wait();
    EXPECT_TRUE(at::equal(small, at::full({5}, 258.0, at::kBFloat16)));
  });
}

TEST(LocalGroup, AllReduceAddsCountsExactlyAndTakesFewElementsThanRanks) {
  run_local_ranks(4, [](Communicator& comm) {
    const at::Tensor count = at::full({1}, int64_t{1} << 53, at::kLong).add(comm.rank());
    comm.all_reduce(count)->wait();
    EXPECT_EQ(count.item<int64_t>(), (int64_t{4} << 53) + 6);
    const at::Tensor none = at::empty({0});
    comm.all_reduce(none)->wait();
  });
}

TEST(LocalGroup, BroadcastCopiesTheRoot) {
  run_local_ranks(3, [](Communicator& comm) {
    const at::Tensor tensor = at::full({4}, comm.rank(), at::kInt);
    comm.broadcast(tensor, 2)->wait();
    EXPECT_TRUE(at::equal(tensor, at::full({4}, 2, at::kInt)));
  });
}

TEST(LocalGroup, OneRankNeedsNoOther) {
  run_local_ranks(1, [](Communicator& comm) {
    const at::Tensor tensor = at::arange(3, at::kFloat);
    const at::Tensor copy = at::empty({3});
    comm.barrier();
    comm.all_to_all(tensor, {3}, copy, {3})->wait();
    comm.all_reduce(copy)->wait();
    EXPECT_TRUE(at::equal(copy, tensor));
  });
}

TEST(LocalGroup, DisagreementIsTheSameErrorOnAllRanks) {
  std::atomic<int> named = 0;
  const auto body = [&](Communicator& comm) {
    const at::Tensor send = at::empty({2, 4});
    // Rank 1 sends both rows to rank 0, which expects one.
    const std::vector<int64_t> send_rows =
        comm.rank() == 0 ? std::vector<int64_t>{1, 1} : std::vector<int64_t>{2, 0};
    const std::vector<int64_t> receive_rows = {1, 1};
    const std::string message = message_of([&] {
      comm.all_to_all(send, send_rows, at::empty({2, 4}), receive_rows);
    });
    if (message.find("rank 1 sends 2 rows to rank 0, which expects 1") != std::string::npos) ++named;
    EXPECT_NE(message_of([&] { comm.barrier(); }).find("group failed"), std::string::npos);
  };
  run_local_ranks(2, body);
  EXPECT_EQ(named, 2);
}

TEST(LocalGroup, BadArgumentsAreNamed) {
  struct Case {
    std::function<void(Communicator&)> call;
    std::string expected;
  };
  const at::Tensor rows = at::empty({2, 3});
  const std::vector<Case> cases = {
      {[&](Communicator& comm) { comm.rank() == 0 ? comm.barrier() : (void)comm.all_reduce(rows.clone()); },
       "rank 0 calls barrier while rank 1 calls all_reduce"},
      {[&](Communicator& comm) {
         comm.all_reduce(at::empty({2, comm.rank() + 1}));
       },
       "expected one shape"},
      {[&](Communicator& comm) { comm.all_reduce(at::empty({4}, comm.rank() ? at::kInt : at::kFloat)); },
       "the same dtype"},
      {[&](Communicator& comm) { comm.all_reduce(rows.t()); }, "to be contiguous"},
      {[&](Communicator& comm) { comm.broadcast(rows.clone(), comm.rank()); }, "the same root"},
      {[&](Communicator& comm) {
         comm.all_gather(rows, at::empty({4, 2}), {2, 2});
       },
       "rows of one shape"},
      {[&](Communicator& comm) {
         comm.all_gather(rows, at::empty({3, 3}), {2, 2});
       },
       "receive with 4 rows"},
      {[&](Communicator& comm) {
         comm.reduce_scatter(rows, at::empty({1, 3}), {1, 2});
       },
       "send with 3 rows"},
      {[&](Communicator& comm) {
         comm.all_to_all(rows, {2}, at::empty({2, 3}), {1, 1});
       },
       "send_rows for 2 ranks"},
      {[&](Communicator& comm) {
         comm.all_to_all(rows, {3, -1}, at::empty({2, 3}), {1, 1});
       },
       "at least 0"},
  };
  for (const Case& c : cases) {
    const std::string message = message_of([&] { run_local_ranks(2, c.call); });
    EXPECT_NE(message.find(c.expected), std::string::npos)
        << "expected '" << c.expected << "', got: " << message;
  }
  EXPECT_NE(message_of([] { make_local_group(0); }).find("at least 1 rank"), std::string::npos);
}

TEST(LocalGroup, ARankThatThrowsEndsTheOthers) {
  std::atomic<int> released = 0;
  const auto body = [&](Communicator& comm) {
    comm.barrier();
    if (comm.rank() == 2) throw std::runtime_error("rank 2 has had enough");
    const std::string message = message_of([&] { comm.barrier(); });
    if (message.find("needs rank 2, which has left") != std::string::npos) ++released;
  };
  EXPECT_EQ(message_of([&] { run_local_ranks(3, body); }), "rank 2 has had enough");
  EXPECT_EQ(released, 2);
}

}  // namespace
}  // namespace motley
