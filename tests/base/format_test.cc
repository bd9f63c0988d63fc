#include "motley/base/format.h"

#include <gtest/gtest.h>

#include <limits>

namespace motley {
namespace {

TEST(Format, Durations) {
  EXPECT_EQ(format_duration(0.0), "0 ms");
  EXPECT_EQ(format_duration(0.85), "850 ms");
  EXPECT_EQ(format_duration(12.34), "12.3 s");
  EXPECT_EQ(format_duration(59.97), "1 min 00 s");
  EXPECT_EQ(format_duration(245), "4 min 05 s");
  EXPECT_EQ(format_duration(2 * 3600 + 3 * 60 + 4), "2 h 03 min");
  EXPECT_EQ(format_duration(3 * 86400 + 4 * 3600), "3 d 04 h");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "?");
}

TEST(Format, Counts) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(1.5), "1.50");
  EXPECT_EQ(format_count(1000), "1.00 k");
  EXPECT_EQ(format_count(12345), "12.3 k");
  EXPECT_EQ(format_count(999'999), "1.00 M");
  EXPECT_EQ(format_count(4'560'000), "4.56 M");
  EXPECT_EQ(format_count(7.89e9), "7.89 G");
}

TEST(Format, Rates) {
  EXPECT_EQ(format_rate(2, "steps"), "2.00 steps/s");
  EXPECT_EQ(format_rate(0.333, "steps"), "0.33 steps/s");
  EXPECT_EQ(format_rate(456.7, "files"), "457 files/s");
  EXPECT_EQ(format_rate(999.7, "tokens"), "1.00 k tokens/s");
  EXPECT_EQ(format_rate(12345, "tokens"), "12.3 k tokens/s");
}

TEST(Format, Bytes) {
  EXPECT_EQ(format_bytes(512), "512 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1536), "1.50 KiB");
  EXPECT_EQ(format_bytes(2.0 * (1 << 30)), "2.00 GiB");
}

TEST(Format, Decimals) {
  EXPECT_EQ(format_decimal(1.5, 3), "1.500");
  EXPECT_EQ(format_decimal(-0.25, 1), "-0.2");
  EXPECT_EQ(format_decimal(1e300, 0).size(), 301u);
}

}  // namespace
}  // namespace motley
