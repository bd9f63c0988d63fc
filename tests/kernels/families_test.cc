#include "motley/kernels/cpu/families.h"

#include <gtest/gtest.h>

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

TEST(Families, ForcedByName) {
  EXPECT_EQ(find_cpu_family("portable").name, "portable");
  for (const Family& family : cpu_families()) {
    if (!family.available) continue;
    EXPECT_EQ(find_cpu_family(family.name).name, family.name);
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
