#include "motley/base/memory.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/user_error.h"

namespace motley {
namespace {

namespace fs = std::filesystem;

TEST(Memory, ReadsWhatTheSystemSays) {
  const fs::path file = fs::temp_directory_path() / "motley_meminfo_test";
  std::ofstream(file)
      << "MemTotal:    2048 kB\nMemFree:   1 kB\nMemAvailable:   1024 kB\nSwapTotal:  512 kB\n";
  const Memory memory = usable_memory(file);
  fs::remove(file);
  EXPECT_EQ(memory.total, 2048u * 1024);
  EXPECT_EQ(memory.available, 1024u * 1024);
  EXPECT_EQ(memory.swap, 512u * 1024);
  EXPECT_EQ(usable_memory("/none").total, 0u);
  EXPECT_GT(usable_memory().total, uint64_t{1} << 28);
}

TEST(Memory, WhatCannotFitIsRefused) {
  EXPECT_NO_THROW(require_memory("c.json: model", "weights", 1e6, "shrink it"));
  const std::string message =
      user_error([] { require_memory("c.json: model", "weights", 3.0 * (uint64_t{1} << 60), "shrink it"); });
  EXPECT_TRUE(message.starts_with("c.json: model: expected weights within the ")) << message;
  EXPECT_TRUE(message.ends_with(" of memory here, found 3145728 TiB; shrink it")) << message;
}

}  // namespace
}  // namespace motley
