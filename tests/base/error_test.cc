#include "motley/base/error.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>

namespace motley {
namespace {

template <class Error, class F>
std::string message_of(F f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "(no error)";
}

TEST(Error, MistakeNamesAllItsParts) {
  const UserError error(Mistake{"a.json: train.steps", "a whole number", "\"x\"", "write a number"});
  EXPECT_STREQ(error.what(), "a.json: train.steps: expected a whole number, found \"x\"; write a number");
}

TEST(Error, MistakeLeavesOutEmptyParts) {
  EXPECT_STREQ(UserError(Mistake{"--out", "a folder", "", ""}).what(), "--out: expected a folder");
  EXPECT_STREQ(UserError(Mistake{"--out", "", "a file", ""}).what(), "--out: found a file");
  EXPECT_STREQ(UserError(Mistake{"--out", "", "", "name a folder"}).what(), "--out; name a folder");
}

TEST(Error, MessagesUseTheUsersWords) {
  const auto said = [](const char* message) {
    return in_words(message, {{"top_k", "--top-k"}, {"prompt 0", "--prompt"}});
  };
  EXPECT_EQ(said("top_k: expected 0, found 5"), "--top-k: expected 0, found 5");
  EXPECT_EQ(said("prompt 0, token 3: expected an id"), "--prompt, token 3: expected an id");
  EXPECT_EQ(said("top_kings: no"), "top_kings: no");
  EXPECT_EQ(said("a top_k: no"), "a top_k: no");
}

TEST(Error, UserCheckJoinsItsArgumentsOnlyOnFailure) {
  int evaluated = 0;
  auto count = [&evaluated] { return ++evaluated; };
  EXPECT_NO_THROW(MOTLEY_CHECK_USER(true, "never ", count()));
  EXPECT_EQ(evaluated, 0);
  EXPECT_EQ(message_of<UserError>([&] { MOTLEY_CHECK_USER(1 > 2, "--top-k: found ", count(), ' ', 2.5); }),
            "--top-k: found 1 2.5");
}

TEST(Error, InternalCheckTellsPlaceAndCondition) {
  EXPECT_NO_THROW(MOTLEY_CHECK(true));
  const std::string text = message_of<InternalError>([] { MOTLEY_CHECK(1 == 2, "rows ", 3); });
  EXPECT_NE(text.find("error_test.cc:"), std::string::npos) << text;
  EXPECT_NE(text.find("1 == 2: rows 3"), std::string::npos) << text;
}

TEST(Error, FileErrorsGiveReasonAndAdvice) {
  EXPECT_EQ(message_of<UserError>([] { throw_file_error("read", "/no/such", ENOENT); }),
            "cannot read '/no/such': No such file or directory; check the path");
  const std::string full = message_of<UserError>([] { throw_file_error("write", "x", ENOSPC); });
  EXPECT_NE(full.find("No space left on device; free some space"), std::string::npos) << full;
}

}  // namespace
}  // namespace motley
