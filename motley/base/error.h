#pragma once
// Two kinds of failure: the user's mistake (exit code 2, one clear message) and ours (exit code 1).
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "motley/base/concat.h"

namespace motley {

// What a message about a mistake must tell. Empty parts are left out.
struct Mistake {
  std::string where;     // the file, key or flag
  std::string expected;  // what would have been right
  std::string found;     // what was there
  std::string fix;       // what to do about it
};

// A wrong file, key, flag, size, ...: something the user can put right.
class UserError : public std::runtime_error {
 public:
  explicit UserError(const std::string& message) : std::runtime_error(message) {}
  // "WHERE: expected EXPECTED, found FOUND; FIX"
  explicit UserError(const Mistake& mistake);
};

// A message that begins with a name of ours, "top_k: expected ...", in the user's word for it: {"top_k",
// "--top-k"}.
std::string in_words(std::string_view message,
                     std::initializer_list<std::pair<std::string_view, std::string_view>> words);

// A state that only a bug of ours can reach.
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// A file operation that failed: "cannot read PATH: No such file or directory". A missing file, no
// permission and a full disk are for the user to put right, so this throws UserError.
// `action` completes "cannot ...", e.g. "write"; `error_number` is errno right after the call.
[[noreturn]] void throw_file_error(const std::string& action, const std::string& path, int error_number);

[[noreturn]] void throw_internal_error(const char* file, int line, const char* condition,
                                       const std::string& message);

}  // namespace motley

// The arguments after the condition are joined into the message and evaluated only on failure.
#define MOTLEY_CHECK_USER(condition, ...)                                       \
  do {                                                                          \
    if (!(condition)) throw ::motley::UserError(::motley::concat(__VA_ARGS__)); \
  } while (false)

#define MOTLEY_CHECK(condition, ...)                                                                 \
  do {                                                                                               \
    if (!(condition))                                                                                \
      ::motley::throw_internal_error(__FILE__, __LINE__, #condition, ::motley::concat(__VA_ARGS__)); \
  } while (false)
