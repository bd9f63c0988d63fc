#include "motley/base/format.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

namespace motley {
namespace {

// Three significant digits from one to 999, then a unit.
std::string three_digits(double value) {
  const double magnitude = std::abs(value);
  return format_decimal(value, magnitude < 9.995 ? 2 : magnitude < 99.95 ? 1 : 0);
}

std::string two_units(int64_t large, const char* large_unit, int64_t small, const char* small_unit) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%lld %s %02lld %s", static_cast<long long>(large), large_unit,
                static_cast<long long>(small), small_unit);
  return text.data();
}

template <size_t N>
std::string scaled(double value, double step, const std::array<const char*, N>& units) {
  size_t unit = 0;
  // 999.5 would print as 1000, so it already belongs to the next unit.
  while (std::abs(value) >= step - 0.5 && unit + 1 < N) {
    value /= step;
    ++unit;
  }
  const std::string number =
      unit == 0 && value == std::floor(value) ? format_decimal(value, 0) : three_digits(value);
  return *units[unit] == '\0' ? number : number + " " + units[unit];
}

}  // namespace

std::string format_decimal(double value, int digits) {
  std::array<char, 400> text{};  // the largest double has 309 digits before the point
  std::snprintf(text.data(), text.size(), "%.*f", std::clamp(digits, 0, 60), value);
  return text.data();
}

std::string format_duration(double seconds) {
  constexpr int64_t kMinute = 60, kHour = 60 * kMinute, kDay = 24 * kHour;
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  if (seconds < 0.9995) return format_decimal(seconds * 1e3, 0) + " ms";
  if (seconds < 59.95) return format_decimal(seconds, 1) + " s";
  const auto whole = static_cast<int64_t>(std::llround(std::min(seconds, 1e15)));
  if (whole < kHour) return two_units(whole / kMinute, "min", whole % kMinute, "s");
  if (whole < kDay) return two_units(whole / kHour, "h", whole % kHour / kMinute, "min");
  return two_units(whole / kDay, "d", whole % kDay / kHour, "h");
}

std::string format_count(double count) {
  return scaled(count, 1000, std::array<const char*, 5>{"", "k", "M", "G", "T"});
}

std::string format_rate(double per_second, const std::string& unit) {
  const bool small = std::abs(per_second) < 999.5;
  return (small ? three_digits(per_second) : format_count(per_second)) + " " + unit + "/s";
}

std::string format_bytes(double bytes) {
  return scaled(bytes, 1024, std::array<const char*, 5>{"B", "KiB", "MiB", "GiB", "TiB"});
}

}  // namespace motley
