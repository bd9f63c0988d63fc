// Ranks as threads of one process. The plainest Communicator, and the one that others are tested against.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "motley/comm/communicator.h"

namespace motley {

// Communicators of num_ranks ranks, by rank; each is used by one thread at a time. A collective returns
// when every rank has called it and its result is there, so wait() never waits.
//
// Ranks that disagree on the collective or on its sizes all get the same c10::Error. A rank whose
// communicator is destroyed while others wait for it makes them throw c10::Error too, so that an exception
// in one rank ends all of them. After either, the group refuses every call.
std::vector<std::unique_ptr<Communicator>> make_local_group(int num_ranks);

// Calls body once per rank, each in a thread of its own, and joins them. Throws what the first rank to
// fail threw.
void run_local_ranks(int num_ranks, const std::function<void(Communicator&)>& body);

}  // namespace motley
