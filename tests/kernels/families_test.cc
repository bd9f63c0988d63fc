#include "motley/kernels/cpu/families.h"

#include <gtest/gtest.h>

#include <string_view>

#include "motley/base/env.h"
#include "motley/base/error.h"

namespace motley::kernels {
namespace {

TEST(Families, PortableIsFirstAndAlwaysThere) {
  ASSERT_FALSE(cpu_families().empty());
  EXPECT_EQ(cpu_families().front().name, "portable");
  EXPECT_TRUE(cpu_families().front().available);
}

TEST(Families, TablesAreWhole) {
  for (const Family& family : cpu_families()) {
    ASSERT_NE(family.kernels, nullptr) << family.name;
    EXPECT_NE(family.kernels->tile(family.kernels->panel_type(DType::kFloat32)), nullptr) << family.name;
    EXPECT_NE(family.kernels->tile(family.kernels->panel_type(DType::kBFloat16)), nullptr) << family.name;
  }
}

// What MOTLEY_CPU_KERNELS takes (motley/base/env.cc) and what there is.
TEST(Families, HaveTheNamesOfTheEnvironmentVariable) {
  for (const Family& family : cpu_families()) {
    const auto forced = [&](const char* name) {
      return std::string_view(name) == "MOTLEY_CPU_KERNELS" ? family.name.c_str() : nullptr;
    };
    EXPECT_EQ(read_environment(forced).cpu_kernels, family.name);
  }
}

TEST(Families, ForcedByNameUnlessTheProcessorLacksThem) {
  for (const Family& family : cpu_families()) {
    if (family.available) {
      EXPECT_EQ(find_cpu_family(family.name).kernels, family.kernels) << family.name;
      EXPECT_EQ(find_cpu_family(family.name).kernels->name, family.name);
      continue;
    }
    try {
      find_cpu_family(family.name);
      ADD_FAILURE() << family.name << " was accepted";
    } catch (const UserError& error) {
      EXPECT_NE(std::string(error.what()).find(family.name), std::string::npos) << error.what();
    }
  }
}

TEST(Families, UnknownNameListsThoseThereAre) {
  try {
    find_cpu_family("sse9");
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("portable"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("sse9"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace motley::kernels
