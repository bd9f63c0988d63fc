#include "motley/base/config_values.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/user_error.h"

namespace motley {
namespace {

using nlohmann::json;

TEST(ConfigValues, ReadsEveryType) {
  const json object = json::parse(R"({"b": true, "i": 7, "l": 5000000000, "f": 0.5, "d": 1e-3, "s": "text",
                                      "li": [1, 2], "ld": [0.5, 2], "ls": ["a"], "million": 1e6})");
  ConfigValues values(object, "a.json");
  EXPECT_TRUE(values.required<bool>("b"));
  EXPECT_EQ(values.required<int>("i"), 7);
  EXPECT_EQ(values.required<int64_t>("l"), 5000000000);
  EXPECT_EQ(values.required<float>("f"), 0.5f);
  EXPECT_EQ(values.required<double>("d"), 1e-3);
  EXPECT_EQ(values.required<double>("i"), 7.0);
  EXPECT_EQ(values.required<std::string>("s"), "text");
  EXPECT_EQ(values.required<std::vector<int64_t>>("li"), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(values.required<std::vector<double>>("ld"), (std::vector<double>{0.5, 2}));
  EXPECT_EQ(values.required<std::vector<std::string>>("ls"), std::vector<std::string>{"a"});
  EXPECT_EQ(values.required<int>("million"), 1000000);
  EXPECT_NO_THROW(values.finish());
}

TEST(ConfigValues, RangesShowWholeNumbersWhole) {
  const json object = {{"n", 16777217}, {"r", 3}};
  ConfigValues values(object, "a.json");
  EXPECT_EQ(user_error([&] { values.required<int64_t>("n", between(1, 1 << 24)); }),
            "a.json: n: expected a whole number from 1 to 16777216, found 16777217");
  EXPECT_EQ(user_error([&] { values.required<double>("r", between(1e-30, 0.5)); }),
            "a.json: r: expected a number from 1e-30 to 0.5, found 3");
}

TEST(ConfigValues, AbsentAndNullGiveTheDefault) {
  const json object = {{"nothing", nullptr}};
  ConfigValues values(object, "a.json");
  EXPECT_EQ(values.optional<int>("nothing", 3), 3);
  EXPECT_EQ(values.optional<std::string>("missing", "x"), "x");
  EXPECT_EQ(values.choice("mode", {"one", "two"}, "two"), "two");
  EXPECT_FALSE(values.has("nothing"));
  EXPECT_EQ(user_error([&] { values.required<int>("missing"); }),
            "a.json: missing: expected a value, found none; this key is required");
  const json mistyped = {{"stps", 3}};
  EXPECT_EQ(user_error([&] { ConfigValues(mistyped, "a.json").required<int>("steps"); }),
            "a.json: steps: expected a value, found none, but 'stps'; this key is required");
}

TEST(ConfigValues, WrongTypesNamePathExpectedAndFound) {
  const json object = json::parse(R"({"train": {"steps": "many", "rate": true, "seeds": [1, "x"],
                                      "half": 0.5, "big": 3000000000, "name": 3}})");
  ConfigValues train = ConfigValues(object, "a.json").section("train");
  EXPECT_EQ(user_error([&] { train.required<int64_t>("steps", at_least(1)); }),
            "a.json: train.steps: expected a whole number of at least 1, found \"many\"");
  EXPECT_EQ(user_error([&] { train.required<double>("rate"); }),
            "a.json: train.rate: expected a number, found true");
  EXPECT_EQ(user_error([&] { train.required<std::vector<int64_t>>("seeds"); }),
            "a.json: train.seeds: expected a list, each element a whole number, found [1,\"x\"]");
  EXPECT_EQ(user_error([&] { train.required<int>("half"); }),
            "a.json: train.half: expected a whole number, found 0.5");
  EXPECT_EQ(user_error([&] { train.required<int>("big"); }),
            "a.json: train.big: expected a whole number, found 3000000000");
  EXPECT_EQ(user_error([&] { train.required<std::string>("name"); }),
            "a.json: train.name: expected a string, found 3");
}

TEST(ConfigValues, RangesIncludeTheirEnds) {
  const json object = {{"p", 1.0}, {"q", 1.5}, {"list", {0, 4}}};
  ConfigValues values(object, "a.json");
  EXPECT_EQ(values.required<double>("p", between(0, 1)), 1.0);
  EXPECT_EQ(user_error([&] { values.required<double>("q", between(0, 1)); }),
            "a.json: q: expected a number from 0 to 1, found 1.5");
  EXPECT_EQ(user_error([&] { values.optional<std::vector<int64_t>>("list", {}, at_least(1)); }),
            "a.json: list: expected a list, each element a whole number of at least 1, found [0,4]");
}

TEST(ConfigValues, ChoicesSuggestTheNearest) {
  const json object = {{"gate", "sofmax"}, {"other", 4}};
  ConfigValues values(object, "a.json");
  EXPECT_EQ(user_error([&] {
              values.choice("gate", {"softmax", "switch", "moe++"});
            }),
            "a.json: gate: expected softmax, switch or moe++, found \"sofmax\"; did you mean 'softmax'?");
  EXPECT_EQ(user_error([&] { values.choice("other", {"one"}); }), "a.json: other: expected one, found 4");
}

TEST(ConfigValues, UnknownKeysAreErrorsWithTheNearestKnownOne) {
  const json object = json::parse(R"({"train": {"lerning_rate": 1, "steps": 2}})");
  ConfigValues top(object, "a.json");
  ConfigValues train = top.section("train");
  train.optional<double>("learning_rate", 0.1);
  train.required<int>("steps");
  EXPECT_NO_THROW(top.finish());
  EXPECT_EQ(user_error([&] { train.finish(); }),
            "a.json: train.lerning_rate: expected a known key, found an unknown one; did you mean "
            "'train.learning_rate'?");
  train.know("lerning_rate");
  EXPECT_NO_THROW(train.finish());
}

TEST(ConfigValues, ASourceMayBeAnObjectInAFile) {
  const json object = {{"num_expert", 3}, {"gate", {{"x", 1}}}};
  ConfigValues values(object, "c.json: model.");
  values.optional<int>("num_experts", 1);
  EXPECT_EQ(user_error([&] { values.section("gate").finish(); }).rfind("c.json: model.gate.x: expected", 0),
            0u);
  EXPECT_EQ(user_error([&] { values.finish(); }).rfind("c.json: model.num_expert: expected a known key", 0),
            0u);
  EXPECT_EQ(user_error([] { ConfigValues(json::array(), "c.json: model."); }),
            "c.json: model: expected an object {...}, found []");
}

TEST(ConfigValues, SectionsMustBeObjects) {
  const json object = {{"train", 3}};
  ConfigValues values(object, "a.json");
  EXPECT_EQ(user_error([&] { values.section("train"); }), "a.json: train: expected an object {...}, found 3");
  EXPECT_EQ(user_error([] { ConfigValues(json::array(), "b.json"); }),
            "b.json: expected an object {...}, found []");
}

}  // namespace
}  // namespace motley
