#include "motley/base/log.h"

#include <spdlog/sinks/ansicolor_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <memory>

#include "motley/base/env.h"
#include "motley/base/error.h"

namespace motley {
namespace {

spdlog::level::level_enum level_of(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
    case LogLevel::kOff:
      return spdlog::level::off;
  }
  throw InternalError("unknown log level");
}

spdlog::logger& logger() {
  static const std::shared_ptr<spdlog::logger> instance = [] {
    auto made = std::make_shared<spdlog::logger>("motley",
                                                 std::make_shared<spdlog::sinks::ansicolor_stderr_sink_mt>());
    // On a terminal a line first wipes the progress line that may stand there.
    made->set_pattern(isatty(STDERR_FILENO) ? "\r\033[K%H:%M:%S %^%l%$ %v" : "%Y-%m-%d %H:%M:%S %l %v");
    made->set_level(level_of(environment().log_level));
    made->flush_on(spdlog::level::trace);
    return made;
  }();
  return *instance;
}

}  // namespace

LogLevel parse_log_level(std::string_view name, const std::string& where) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "info") return LogLevel::kInfo;
  if (name == "warn") return LogLevel::kWarn;
  if (name == "error") return LogLevel::kError;
  if (name == "off") return LogLevel::kOff;
  throw UserError(Mistake{where, "debug, info, warn, error or off", concat("'", name, "'"), ""});
}

bool log_enabled(LogLevel level) { return logger().should_log(level_of(level)); }

void log_line(LogLevel level, const std::string& message) { logger().log(level_of(level), message); }

}  // namespace motley
