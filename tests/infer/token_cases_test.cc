#include "motley/infer/token_cases.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "motley/io/atomic_file.h"
#include "tests/io/temporary_folder.h"

namespace motley {
namespace {

using testing::AllOf;
using testing::HasSubstr;

TEST(TokenCases, ReadsListsAndObjects) {
  TemporaryFolder folder;
  write_file_atomic(folder / "c.json", R"([[1, 2], {"prompt": [3], "greedy": [4]}, []])");
  EXPECT_EQ(read_token_cases(folder / "c.json"), (std::vector<std::vector<int64_t>>{{1, 2}, {3}, {}}));
}

TEST(TokenCases, NamesTheFileAndTheElement) {
  TemporaryFolder folder;
  const auto error = [&](const std::string& text) {
    write_file_atomic(folder / "c.json", text);
    return user_error([&] { read_token_cases(folder / "c.json"); });
  };
  EXPECT_THAT(error("[]"), HasSubstr("c.json"));
  EXPECT_THAT(error(R"({"prompt": [1]})"), HasSubstr("list of lists"));
  EXPECT_THAT(error(R"([[1], ["a"]])"), AllOf(HasSubstr("element 1"), HasSubstr("\"a\"")));
  EXPECT_THAT(error("[[1.5]]"), HasSubstr("element 0"));
  EXPECT_THAT(error("[[18446744073709551615]]"), HasSubstr("found [18446744073709551615]"));
  EXPECT_THAT(error("[[1"), HasSubstr("c.json"));
  EXPECT_THAT(user_error([&] { read_token_cases(folder / "none.json"); }), HasSubstr("none.json"));
}

}  // namespace
}  // namespace motley
