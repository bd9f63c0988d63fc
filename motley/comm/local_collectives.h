// The collectives of a local group as functions of what all ranks offer: checks, and the copying that one
// rank does. Every rank runs the same checks on the same offers, so that all of them throw or none.
#pragma once

#include <vector>

#include "motley/comm/rendezvous.h"

namespace motley {

// Throws c10::Error that names the ranks and what they disagree on.
void check_offers(const std::vector<Offer>& offers);

// What `rank` copies or adds after the check; ranks run these at the same time.
void local_all_to_all(const std::vector<Offer>& offers, int rank);
void local_all_gather(const std::vector<Offer>& offers, int rank);
void local_reduce_scatter(const std::vector<Offer>& offers, int rank);
// Rank r adds up the r-th part of the elements and writes it to every rank's tensor.
void local_all_reduce(const std::vector<Offer>& offers, int rank);
void local_broadcast(const std::vector<Offer>& offers, int rank);

}  // namespace motley
