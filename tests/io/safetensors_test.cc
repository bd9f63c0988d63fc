#include "motley/io/safetensors.h"

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "motley/io/atomic_file.h"
#include "tests/io/temporary_folder.h"

namespace motley {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// A file with this header text; the length field says `length` if given.
fs::path raw_file(const TemporaryFolder& folder, const std::string& header, size_t data_bytes,
                  int64_t length = -1) {
  const uint64_t n = length < 0 ? header.size() : length;
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &n, 8);
  write_file_atomic(folder / "raw.safetensors", bytes + header + std::string(data_bytes, 'x'));
  return folder / "raw.safetensors";
}

std::string raw_error(const std::string& header, size_t data_bytes, int64_t length = -1) {
  TemporaryFolder folder;
  const fs::path path = raw_file(folder, header, data_bytes, length);
  const std::string message = user_error([&] { SafetensorsFile file(path); });
  EXPECT_THAT(message, HasSubstr(path.string()));
  return message;
}

NamedTensors samples() {
  const auto counting = at::arange(12, at::kFloat).reshape({3, 4});
  return {{"f32", counting},
          {"bf16", counting.to(at::kBFloat16)},
          {"transposed", counting.t()},
          {"i64", at::arange(3, at::kLong)},
          {"bool", at::ones({5}, at::kBool)},
          {"scalar", at::scalar_tensor(2.5, at::kDouble)},
          {"empty", at::empty({0, 7}, at::kFloat)}};
}

TEST(Safetensors, RoundTripsEveryTensor) {
  TemporaryFolder folder;
  write_safetensors(folder / "a.safetensors", samples(), {{"format", "pt"}});
  const SafetensorsFile file(folder / "a.safetensors");
  EXPECT_EQ(file.entries().size(), samples().size());
  EXPECT_EQ(file.metadata().at("format"), "pt");
  for (const auto& [name, tensor] : samples()) {
    const auto read = file.tensor(name);
    EXPECT_EQ(read.scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(at::equal(read, tensor)) << name;
  }
}

TEST(Safetensors, ViewsOutliveTheFileAndNeverWriteIntoIt) {
  TemporaryFolder folder;
  write_safetensors(folder / "a.safetensors", samples());
  auto view = SafetensorsFile(folder / "a.safetensors").tensor("f32");
  const auto before = view.clone();
  view.zero_();
  EXPECT_TRUE(at::equal(SafetensorsFile(folder / "a.safetensors").tensor("f32"), before));
}

TEST(Safetensors, ReadsMisalignedData) {
  TemporaryFolder folder;
  const fs::path path = raw_file(folder, R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}} )", 9);
  EXPECT_EQ(SafetensorsFile(path).tensor("a").numel(), 2);
}

TEST(Safetensors, MalformedFilesAreOneClearError) {
  const std::string good = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  EXPECT_THAT(raw_error(good, 4), HasSubstr("truncated"));
  EXPECT_THAT(raw_error(good, 8, 5000), HasSubstr("truncated"));
  EXPECT_THAT(raw_error(good, 8, int64_t{1} << 60), HasSubstr("another kind of file"));
  EXPECT_THAT(raw_error("not a header at all", 8), HasSubstr("another kind of file"));
  EXPECT_THAT(raw_error("{\"a\":", 8), HasSubstr("JSON"));
  const auto with = [](const std::string& entry) { return "{\"weight\":{" + entry + "}}"; };
  EXPECT_THAT(raw_error(with(R"("dtype":"Q7","shape":[2],"data_offsets":[0,8])"), 8),
              AllOf(HasSubstr("weight"), HasSubstr("Q7"), HasSubstr("BF16")));
  EXPECT_THAT(raw_error(with(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])"), 8),
              AllOf(HasSubstr("weight"), HasSubstr("12 bytes")));
  EXPECT_THAT(raw_error(with(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"), 8), HasSubstr("[-2]"));
  EXPECT_THAT(raw_error(with(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), 8), HasSubstr("[8,0]"));
  EXPECT_THAT(raw_error(with(R"("dtype":"F32","shape":[2])"), 8), HasSubstr("data_offsets"));
  EXPECT_THAT(raw_error(with(R"("dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8])"), 8),
              HasSubstr("fits into memory"));
  EXPECT_THAT(raw_error(with(R"("dtype":"F32","shape":[0,4611686018427387904,4],"data_offsets":[0,0])"), 8),
              HasSubstr("fits into memory"));
  EXPECT_THAT(raw_error(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                        R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                        12),
              AllOf(HasSubstr("shared with a"), HasSubstr("b")));
  EXPECT_THAT(raw_error(good, 9), AllOf(HasSubstr(std::to_string(good.size() + 16) + " bytes, where"),
                                        HasSubstr(std::to_string(good.size() + 17) + " bytes")));
}

TEST(Safetensors, TooShortOrMissingFiles) {
  TemporaryFolder folder;
  write_file_atomic(folder / "short", "abc");
  EXPECT_THAT(user_error([&] { SafetensorsFile file(folder / "short"); }), HasSubstr("3 bytes"));
  write_file_atomic(folder / "empty", "");
  EXPECT_THAT(user_error([&] { SafetensorsFile file(folder / "empty"); }), HasSubstr("0 bytes"));
  EXPECT_THAT(user_error([&] { SafetensorsFile file(folder / "missing"); }), HasSubstr("missing"));
  EXPECT_THAT(user_error([&] { SafetensorsFile file(folder.path()); }), HasSubstr(folder.path().string()));
}

TEST(Safetensors, RefusesADtypeThatTheFormatLacks) {
  TemporaryFolder folder;
  EXPECT_THAT(user_error([&] {
                write_safetensors(folder / "a", {{"complex", at::zeros({2}, at::kComplexFloat)}});
              }),
              HasSubstr("complex"));
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(TensorFolder, ReadsOneFileAndShardsAlike) {
  for (const uint64_t shard_bytes : {uint64_t{1} << 30, uint64_t{64}}) {
    TemporaryFolder folder;
    write_tensor_folder(folder.path(), samples(), "model", shard_bytes);
    EXPECT_EQ(fs::exists(folder / "model.safetensors.index.json"), shard_bytes == 64);
    const TensorFolder tensors(folder.path());
    EXPECT_EQ(tensors.names().size(), samples().size());
    for (const auto& [name, tensor] : samples()) EXPECT_TRUE(at::equal(tensors.tensor(name), tensor)) << name;
  }
}

TEST(TensorFolder, NamesWhatIsMissingOrMisshapen) {
  TemporaryFolder folder;
  EXPECT_THAT(user_error([&] { TensorFolder tensors(folder.path()); }), HasSubstr("model.safetensors"));
  EXPECT_THAT(user_error([&] { TensorFolder tensors(folder / "none"); }), HasSubstr("no such folder"));
  write_tensor_folder(folder.path(), {{"model.norm.weight", at::zeros({4})}});
  const TensorFolder tensors(folder.path());
  EXPECT_THAT(user_error([&] { tensors.tensor("model.norm.weights"); }),
              AllOf(HasSubstr("model.norm.weights"), HasSubstr("the nearest is model.norm.weight")));
  EXPECT_THAT(user_error([&] { tensors.tensor("model.norm.weight", {5}); }),
              AllOf(HasSubstr("model.norm.weight"), HasSubstr("[5]"), HasSubstr("[4]")));
}

TEST(TensorFolder, IndexMustNameFilesBesideItThatHoldTheTensors) {
  TemporaryFolder folder;
  const auto index = [&](const std::string& text) {
    write_file_atomic(folder / "model.safetensors.index.json", text);
    return user_error([&] { TensorFolder tensors(folder.path()); });
  };
  EXPECT_THAT(index("{}"), HasSubstr("weight_map"));
  EXPECT_THAT(index(R"({"weight_map": {"a": "../secret"}})"), HasSubstr("../secret"));
  EXPECT_THAT(index(R"({"weight_map": {"a": "gone.safetensors"}})"), HasSubstr("gone.safetensors"));
  write_safetensors(folder / "s.safetensors", {{"b", at::zeros({1})}});
  EXPECT_THAT(index(R"({"weight_map": {"a": "s.safetensors"}})"), HasSubstr("tensor a"));
}

}  // namespace
}  // namespace motley
