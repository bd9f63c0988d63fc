#include "motley/base/error.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace motley {
namespace {

std::string describe(const Mistake& mistake) {
  std::string text;
  auto add = [&text](const char* separator, const char* label, const std::string& part) {
    if (part.empty()) return;
    if (!text.empty()) text += separator;
    text += label + part;
  };
  add("", "", mistake.where);
  add(": ", "expected ", mistake.expected);
  add(mistake.expected.empty() ? ": " : ", ", "found ", mistake.found);
  add("; ", "", mistake.fix);
  return text;
}

const char* advice(int error_number) {
  switch (error_number) {
    case ENOENT:
      return "; check the path";
    case EACCES:
    case EPERM:
    case EROFS:
      return "; choose a place you may use, or change its permissions";
    case ENOSPC:
    case EDQUOT:
      return "; free some space or choose another disk";
    default:
      return "";  // any other error speaks for itself
  }
}

}  // namespace

UserError::UserError(const Mistake& mistake) : std::runtime_error(describe(mistake)) {}

std::string in_words(std::string_view message,
                     std::initializer_list<std::pair<std::string_view, std::string_view>> words) {
  for (const auto& [ours, theirs] : words) {
    const std::string_view rest = message.substr(std::min(ours.size(), message.size()));
    if (message.starts_with(ours) && (rest.starts_with(':') || rest.starts_with(',')))
      return concat(theirs, rest);
  }
  return std::string(message);
}

void throw_file_error(const std::string& action, const std::string& path, int error_number) {
  throw UserError(
      concat("cannot ", action, " '", path, "': ", std::strerror(error_number), advice(error_number)));
}

void throw_internal_error(const char* file, int line, const char* condition, const std::string& message) {
  throw InternalError(
      concat("internal error at ", file, ":", line, ": ", condition, message.empty() ? "" : ": ", message));
}

}  // namespace motley
