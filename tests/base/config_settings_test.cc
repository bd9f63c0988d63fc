#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "motley/base/config_values.h"
#include "tests/support/user_error.h"

namespace motley {
namespace {

using nlohmann::json;

class JsonFile : public testing::Test {
 protected:
  JsonFile()
      : path_(
            (std::filesystem::temp_directory_path() / ("motley_json_" + std::to_string(getpid()))).string()) {
  }
  ~JsonFile() override { std::remove(path_.c_str()); }
  void write(const std::string& text) { std::ofstream(path_) << text; }
  std::string path_;
};

TEST_F(JsonFile, Reads) {
  write(R"({"a": [1, 2]})");
  EXPECT_EQ(read_json_file(path_), json::parse(R"({"a": [1, 2]})"));
}

TEST_F(JsonFile, NamesLineAndColumnOfAMistake) {
  write("{\n  \"a\": 1,\n  \"b\": x\n}");
  const std::string text = user_error([&] { read_json_file(path_); });
  EXPECT_EQ(text.rfind(path_ + ":3:8: expected JSON", 0), 0u) << text;
}

TEST_F(JsonFile, NamesANumberThatNoDoubleHolds) {
  write(R"({"a": 1e999})");
  const std::string text = user_error([&] { read_json_file(path_); });
  EXPECT_EQ(text.rfind(path_ + ": expected numbers", 0), 0u) << text;
  EXPECT_NE(text.find("1e999"), std::string::npos) << text;
}

TEST(JsonText, ReplacesBytesThatAreNotUtf8) {
  EXPECT_EQ(json_text({{"path", "a\xff"}}), "{\"path\":\"a\ufffd\"}");
  EXPECT_EQ(json_text({{"a", 1}}, 2), "{\n  \"a\": 1\n}");
}

TEST_F(JsonFile, RefusesWhatIsNotAFileWithText) {
  EXPECT_EQ(user_error([&] { read_json_file(path_); }),
            "cannot read '" + path_ + "': No such file or directory; check the path");
  write("");
  EXPECT_EQ(
      user_error([&] { read_json_file(path_); }).rfind(path_ + ": expected JSON, found an empty file", 0),
      0u);
  const std::string folder = std::filesystem::temp_directory_path().string();
  EXPECT_EQ(user_error([&] { read_json_file(folder); }), "cannot read '" + folder + "': Is a directory");
}

TEST_F(JsonFile, RefusesWhatIsNestedTooDeep) {
  const std::string hundred = std::string(100, '[') + std::string(100, ']');
  write(R"({"a": "[[[[{{{{\"[[", "b": )" + hundred.substr(1, 198) + "}");
  EXPECT_NO_THROW(read_json_file(path_));
  write("[" + hundred + "]");
  EXPECT_EQ(user_error([&] { read_json_file(path_); }),
            path_ + ": expected JSON nested at most 100 deep, found more");
  json config = json::object();
  EXPECT_EQ(user_error([&] { apply_setting(config, "a.b=" + std::string(100'000, '[')); }),
            "--set a.b: expected JSON nested at most 100 deep, found more");
}

TEST(Settings, RefuseBytesThatAreNotUtf8) {
  json config = json::object();
  EXPECT_NE(user_error([&] { apply_setting(config, "a=\xff"); }).find("--set a: expected UTF-8"),
            std::string::npos);
}

TEST(Settings, WriteNestedValuesOfAnyType) {
  json config = json::parse(R"({"train": {"steps": 5}, "layers": [{"type": "dense"}, {"type": "moe"}]})");
  apply_settings(config, {"train.steps=10", "train.rate=3e-4", "train.name=abc", "train.resume=true",
                          "new.deep.key=[1, 2]", "layers.1.type=\"dense\"", "text=a=b", "empty="});
  EXPECT_EQ(config, json::parse(R"({"train": {"steps": 10, "rate": 3e-4, "name": "abc", "resume": true},
      "layers": [{"type": "dense"}, {"type": "dense"}], "new": {"deep": {"key": [1, 2]}}, "text": "a=b",
      "empty": ""})"));
}

TEST(Settings, RefuseWhatTheyCannotPlace) {
  json config = json::parse(R"({"steps": 5, "list": [1, 2]})");
  const json before = config;
  EXPECT_EQ(user_error([&] { apply_setting(config, "steps"); }),
            "--set: expected KEY=VALUE, e.g. train.learning_rate=3e-4, found 'steps'");
  EXPECT_NE(user_error([&] { apply_setting(config, "a..b=1"); }).find("empty part"), std::string::npos);
  EXPECT_NE(user_error([&] { apply_setting(config, "=1"); }).find("--set"), std::string::npos);
  EXPECT_EQ(user_error([&] { apply_setting(config, "steps.x=1"); }),
            "--set steps.x=1: expected an object that holds 'x', found the value 5 in its place");
  EXPECT_EQ(user_error([&] { apply_setting(config, "list.2=1"); }),
            "--set list.2=1: expected a position below 2, the length of the list, found '2'");
  EXPECT_EQ(config, before);
}

}  // namespace
}  // namespace motley
