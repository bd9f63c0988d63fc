// Where a model computes, by name.
#pragma once

#include <c10/core/Device.h>

#include <string>

namespace motley {

// "cpu", "cuda" (the first GPU) or "cuda:<n>". Throws UserError that begins with `where` for another word,
// and where this build or this machine has no such GPU.
c10::Device parse_device(const std::string& name, const std::string& where);

// Makes what runs from now on on a GPU give the same bits each time, without filling memory that is not yet
// written. No effect on a CPU, where everything does.
void use_deterministic_algorithms();

}  // namespace motley
