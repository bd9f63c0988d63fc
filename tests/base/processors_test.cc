#include "motley/base/processors.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>

namespace motley {
namespace {

namespace fs = std::filesystem;

class Groups : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "motley_groups_XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }
  void write(const std::string& name, const std::string& content) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << content << '\n';
  }
  GroupLimits read() const { return group_limits(folder_, folder_ / "self"); }

  fs::path folder_;
};

TEST_F(Groups, NoFilesAreNoLimit) {
  EXPECT_FALSE(read().processors.has_value());
  write("self", "0::/a");
  write("a/cpu.max", "max 100000");
  write("a/memory.max", "max");
  EXPECT_FALSE(read().processors.has_value());
  EXPECT_FALSE(read().memory.has_value());
}

TEST_F(Groups, TheNarrowestOfAllGroupsAroundTheProcessCounts) {
  write("self", "0::/a/b");
  write("a/b/cpu.max", "400000 100000");
  write("a/cpu.max", "150000 100000");
  write("a/b/memory.max", "max");
  write("a/memory.max", "1000");
  write("a/memory.current", "300");
  EXPECT_DOUBLE_EQ(*read().processors, 1.5);
  EXPECT_EQ(*read().memory, 1000u);
  EXPECT_EQ(*read().memory_used, 300u);
}

TEST_F(Groups, AContainerSeesItsOwnGroupAsTheRoot) {
  write("self", "0::/system.slice/docker-1234.scope");
  write("cpu.max", "200000 100000");
  EXPECT_DOUBLE_EQ(*read().processors, 2.0);
}

TEST_F(Groups, VersionOne) {
  write("self", "4:memory:/box\n3:cpu,cpuacct:/box\n1:name=systemd:/");
  write("cpu,cpuacct/box/cpu.cfs_quota_us", "250000");
  write("cpu,cpuacct/box/cpu.cfs_period_us", "100000");
  write("cpu,cpuacct/cpu.cfs_quota_us", "-1");
  write("cpu,cpuacct/cpu.cfs_period_us", "100000");
  write("memory/box/memory.limit_in_bytes", "5000");
  write("memory/memory.limit_in_bytes", "9223372036854771712");
  EXPECT_DOUBLE_EQ(*read().processors, 2.5);
  EXPECT_EQ(*read().memory, 5000u);
}

TEST(UsableProcessors, AtLeastOne) { EXPECT_GE(usable_processors(), 1); }

}  // namespace
}  // namespace motley
