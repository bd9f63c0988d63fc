// The message of the UserError that a call must throw.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "motley/base/error.h"

namespace motley {

template <class Call>
std::string user_error(const Call& call) {
  try {
    call();
  } catch (const UserError& error) {
    return error.what();
  }
  ADD_FAILURE() << "no UserError was thrown";
  return {};
}

}  // namespace motley
