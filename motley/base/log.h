#pragma once
// The one logger: lines on standard error. Standard output belongs to results.
#include <string>
#include <string_view>

#include "motley/base/concat.h"

namespace motley {

enum class LogLevel { kDebug, kInfo, kWarn, kError, kOff };

// "debug", "info", "warn", "error" or "off"; anything else is a UserError naming `where`.
LogLevel parse_log_level(std::string_view name, const std::string& where);

// The level starts as MOTLEY_LOG says (info without it).
bool log_enabled(LogLevel level);
void log_line(LogLevel level, const std::string& message);

// Arguments are joined as by concat().
template <class... Args>
void log_debug(const Args&... args) {
  if (log_enabled(LogLevel::kDebug)) log_line(LogLevel::kDebug, concat(args...));
}
template <class... Args>
void log_info(const Args&... args) {
  if (log_enabled(LogLevel::kInfo)) log_line(LogLevel::kInfo, concat(args...));
}
template <class... Args>
void log_warn(const Args&... args) {
  if (log_enabled(LogLevel::kWarn)) log_line(LogLevel::kWarn, concat(args...));
}
template <class... Args>
void log_error(const Args&... args) {
  if (log_enabled(LogLevel::kError)) log_line(LogLevel::kError, concat(args...));
}

}  // namespace motley
