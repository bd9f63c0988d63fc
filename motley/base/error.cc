#include "motley/base/error.h"

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

void throw_file_error(const std::string& action, const std::string& path, int error_number) {
  throw UserError(
      concat("cannot ", action, " '", path, "': ", std::strerror(error_number), advice(error_number)));
}

void throw_internal_error(const char* file, int line, const char* condition, const std::string& message) {
  throw InternalError(
      concat("internal error at ", file, ":", line, ": ", condition, message.empty() ? "" : ": ", message));
}

}  // namespace motley
