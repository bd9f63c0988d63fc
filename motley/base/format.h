#pragma once
// Numbers as people read them.
#include <cstdint>
#include <string>

namespace motley {

std::string format_duration(double seconds);  // "850 ms", "12.3 s", "4 min 05 s", "2 h 03 min", "3 d 04 h"
std::string format_count(double count);       // "999", "12.3 k", "4.56 M", "7.89 G"
std::string format_rate(double per_second, const std::string& unit);  // "2.00 steps/s", "12.3 k tokens/s"
std::string format_bytes(double bytes);                               // "512 B", "1.50 KiB", "2.00 GiB"
std::string format_decimal(double value, int digits);  // fixed point: format_decimal(1.5, 3) is "1.500"

}  // namespace motley
