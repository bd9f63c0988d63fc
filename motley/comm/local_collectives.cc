#include "motley/comm/local_collectives.h"

#include <c10/util/Exception.h>

#include <numeric>
#include <string_view>

namespace motley {
namespace {

int64_t sum(const std::vector<int64_t>& rows) {
  return std::accumulate(rows.begin(), rows.end(), int64_t{0});
}

int64_t rows_before(const std::vector<int64_t>& rows, int rank) {
  return std::accumulate(rows.begin(), rows.begin() + rank, int64_t{0});
}

void check_tensor(const Offer& offer, size_t rank, const char* what, const at::Tensor& tensor) {
  TORCH_CHECK(tensor.defined() && tensor.is_contiguous(), "[", offer.collective, "] rank ", rank,
              ": expected ", what, " to be contiguous, got ",
              tensor.defined() ? "one with gaps" : "an undefined tensor");
}

void check_row_count(const Offer& offer, size_t rank, const char* what, const at::Tensor& tensor,
                     int64_t num_rows) {
  TORCH_CHECK(tensor.dim() >= 1 && tensor.size(0) == num_rows, "[", offer.collective, "] rank ", rank,
              ": expected ", what, " with ", num_rows, " rows, got ", tensor.sizes());
}

void check_rows(const Offer& offer, size_t rank, const char* what, const std::vector<int64_t>& rows,
                size_t size) {
  TORCH_CHECK(rows.size() == size, "[", offer.collective, "] rank ", rank, ": expected ", what, " for ", size,
              " ranks, got ", rows.size());
  for (const int64_t count : rows) {
    TORCH_CHECK(count >= 0, "[", offer.collective, "] rank ", rank, ": expected ", what,
                " of at least 0, got ", count);
  }
}

void check_same_elements(const std::vector<Offer>& offers, size_t rank, const at::Tensor& tensor) {
  const at::Tensor& first = offers[0].send;
  TORCH_CHECK(tensor.scalar_type() == first.scalar_type() && tensor.device() == first.device(), "[",
              offers[0].collective, "] expected the same dtype and device on all ranks, got ",
              first.scalar_type(), " on ", first.device(), " on rank 0 and ", tensor.scalar_type(), " on ",
              tensor.device(), " on rank ", rank);
}

void check_same_row_shape(const std::vector<Offer>& offers, size_t rank, const at::Tensor& tensor) {
  const at::Tensor& first = offers[0].send;
  TORCH_CHECK(tensor.dim() == first.dim() && tensor.sizes().slice(1) == first.sizes().slice(1), "[",
              offers[0].collective, "] expected rows of one shape on all ranks, got ", first.sizes(),
              " on rank 0 and ", tensor.sizes(), " on rank ", rank);
}

void check_all_to_all(const std::vector<Offer>& offers) {
  const size_t size = offers.size();
  for (size_t rank = 0; rank < size; ++rank) {
    const Offer& offer = offers[rank];
    check_rows(offer, rank, "send_rows", offer.send_rows, size);
    check_rows(offer, rank, "receive_rows", offer.receive_rows, size);
    check_row_count(offer, rank, "send", offer.send, sum(offer.send_rows));
    check_row_count(offer, rank, "receive", offer.receive, sum(offer.receive_rows));
  }
  for (size_t from = 0; from < size; ++from) {
    for (size_t to = 0; to < size; ++to) {
      TORCH_CHECK(offers[from].send_rows[to] == offers[to].receive_rows[from], "[all_to_all] rank ", from,
                  " sends ", offers[from].send_rows[to], " rows to rank ", to, ", which expects ",
                  offers[to].receive_rows[from]);
    }
  }
}

void check_same_rows(const std::vector<Offer>& offers, size_t rank) {
  check_rows(offers[rank], rank, "rows", offers[rank].send_rows, offers.size());
  TORCH_CHECK(offers[rank].send_rows == offers[0].send_rows, "[", offers[0].collective,
              "] expected the same rows on all ranks, got ", at::IntArrayRef(offers[0].send_rows),
              " on rank 0 and ", at::IntArrayRef(offers[rank].send_rows), " on rank ", rank);
}

void check_gather_or_scatter(const std::vector<Offer>& offers, bool gather) {
  for (size_t rank = 0; rank < offers.size(); ++rank) {
    check_same_rows(offers, rank);
    const Offer& offer = offers[rank];
    const int64_t part = offer.send_rows[rank], whole = sum(offer.send_rows);
    check_row_count(offer, rank, "send", offer.send, gather ? part : whole);
    check_row_count(offer, rank, "receive", offer.receive, gather ? whole : part);
  }
}

// Sums stand in fp32, or in what the elements themselves need more.
at::ScalarType sum_dtype(at::ScalarType dtype) {
  if (c10::isIntegralType(dtype, /*includeBool=*/true)) return at::kLong;
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

// Sum by ascending rank of `count` elements from `begin` on.
at::Tensor sum_of_parts(const std::vector<Offer>& offers, int64_t begin, int64_t count) {
  const at::ScalarType dtype = sum_dtype(offers[0].send.scalar_type());
  at::Tensor total =
      offers[0].send.flatten().narrow(0, begin, count).to(dtype, /*non_blocking=*/false, /*copy=*/true);
  for (size_t rank = 1; rank < offers.size(); ++rank) {
    total.add_(offers[rank].send.flatten().narrow(0, begin, count).to(dtype));
  }
  return total;
}

}  // namespace

void check_offers(const std::vector<Offer>& offers) {
  const std::string_view collective = offers[0].collective;
  for (size_t rank = 0; rank < offers.size(); ++rank) {
    TORCH_CHECK(offers[rank].collective == collective, "[local group] rank 0 calls ", collective,
                " while rank ", rank, " calls ", offers[rank].collective);
    if (collective == "barrier") continue;
    check_tensor(offers[rank], rank, "send", offers[rank].send);
    check_same_elements(offers, rank, offers[rank].send);
    if (collective == "all_reduce" || collective == "broadcast") {
      TORCH_CHECK(offers[rank].send.sizes() == offers[0].send.sizes(), "[", collective,
                  "] expected one shape on all ranks, got ", offers[0].send.sizes(), " on rank 0 and ",
                  offers[rank].send.sizes(), " on rank ", rank);
      continue;
    }
    check_tensor(offers[rank], rank, "receive", offers[rank].receive);
    check_same_elements(offers, rank, offers[rank].receive);
    check_same_row_shape(offers, rank, offers[rank].send);
    check_same_row_shape(offers, rank, offers[rank].receive);
  }
  if (collective == "all_to_all") check_all_to_all(offers);
  if (collective == "all_gather") check_gather_or_scatter(offers, /*gather=*/true);
  if (collective == "reduce_scatter") check_gather_or_scatter(offers, /*gather=*/false);
  if (collective != "broadcast") return;
  const int size = static_cast<int>(offers.size());
  for (int rank = 0; rank < size; ++rank) {
    TORCH_CHECK(offers[rank].root == offers[0].root && offers[rank].root >= 0 && offers[rank].root < size,
                "[broadcast] expected the same root in 0 .. ", size - 1, " on all ranks, got ",
                offers[0].root, " on rank 0 and ", offers[rank].root, " on rank ", rank);
  }
}

void local_all_to_all(const std::vector<Offer>& offers, int rank) {
  int64_t at_row = 0;
  for (const Offer& from : offers) {
    const int64_t count = from.send_rows[rank];
    offers[rank]
        .receive.narrow(0, at_row, count)
        .copy_(from.send.narrow(0, rows_before(from.send_rows, rank), count));
    at_row += count;
  }
}

void local_all_gather(const std::vector<Offer>& offers, int rank) {
  int64_t at_row = 0;
  for (const Offer& from : offers) {
    offers[rank].receive.narrow(0, at_row, from.send.size(0)).copy_(from.send);
    at_row += from.send.size(0);
  }
}

void local_reduce_scatter(const std::vector<Offer>& offers, int rank) {
  const at::Tensor& receive = offers[rank].receive;
  if (receive.numel() == 0) return;
  const int64_t row = receive.numel() / receive.size(0);
  const int64_t begin = rows_before(offers[rank].send_rows, rank) * row;
  receive.copy_(sum_of_parts(offers, begin, receive.numel()).view(receive.sizes()));
}

void local_all_reduce(const std::vector<Offer>& offers, int rank) {
  const int64_t size = static_cast<int64_t>(offers.size()), numel = offers[0].send.numel();
  const int64_t begin = numel * rank / size, count = numel * (rank + 1) / size - begin;
  if (count == 0) return;
  const at::Tensor total = sum_of_parts(offers, begin, count);
  for (const Offer& to : offers) to.send.flatten().narrow(0, begin, count).copy_(total);
}

void local_broadcast(const std::vector<Offer>& offers, int rank) {
  const int root = offers[rank].root;
  if (rank != root) offers[rank].send.copy_(offers[root].send);
}

}  // namespace motley
