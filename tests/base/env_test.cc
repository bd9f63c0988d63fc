#include "motley/base/env.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "motley/base/error.h"

namespace motley {
namespace {

Environment read(const std::map<std::string, std::string>& values) {
  return read_environment([&values](const char* name) -> const char* {
    const auto found = values.find(name);
    return found == values.end() ? nullptr : found->second.c_str();
  });
}

std::string error_of(const std::map<std::string, std::string>& values) {
  try {
    read(values);
  } catch (const UserError& error) {
    return error.what();
  }
  return "(no error)";
}

TEST(Env, NothingSetGivesDefaults) {
  const Environment environment = read({});
  EXPECT_FALSE(environment.cpu_kernels.has_value());
  EXPECT_EQ(environment.log_level, LogLevel::kInfo);
  EXPECT_FALSE(environment.num_threads.has_value());
}

TEST(Env, ReadsEveryVariable) {
  const Environment environment =
      read({{"MOTLEY_CPU_KERNELS", "avx2"}, {"MOTLEY_LOG", "warn"}, {"MOTLEY_THREADS", "3"}});
  EXPECT_EQ(environment.cpu_kernels, "avx2");
  EXPECT_EQ(environment.log_level, LogLevel::kWarn);
  EXPECT_EQ(environment.num_threads, 3);
}

TEST(Env, TakesEveryFamilyOfKernels) {
  for (const char* family : {"portable", "avx2", "avx512", "avx512_bf16", "amx"}) {
    EXPECT_EQ(read({{"MOTLEY_CPU_KERNELS", family}}).cpu_kernels, family);
  }
}

TEST(Env, EmptyCountsAsNotSet) {
  EXPECT_FALSE(read({{"MOTLEY_CPU_KERNELS", ""}}).cpu_kernels.has_value());
  EXPECT_FALSE(read({{"MOTLEY_THREADS", ""}}).num_threads.has_value());
}

TEST(Env, WrongValuesNameTheVariable) {
  EXPECT_EQ(error_of({{"MOTLEY_CPU_KERNELS", "sse"}}),
            "environment variable MOTLEY_CPU_KERNELS: expected portable, avx2, avx512, avx512_bf16 or amx, "
            "found 'sse'");
  EXPECT_EQ(error_of({{"MOTLEY_LOG", "loud"}}),
            "environment variable MOTLEY_LOG: expected debug, info, warn, error or off, found 'loud'");
  for (const char* wrong : {"0", "-1", "2x", "1025", "99999999999"}) {
    EXPECT_EQ(error_of({{"MOTLEY_THREADS", wrong}}),
              "environment variable MOTLEY_THREADS: expected a whole number from 1 to 1024, found '" +
                  std::string(wrong) + "'");
  }
}

TEST(Env, TableListsWhatIsRead) {
  std::map<std::string, int> asked;
  read_environment([&asked](const char* name) -> const char* {
    ++asked[name];
    return nullptr;
  });
  EXPECT_EQ(asked.size(), env_variables().size());
  for (const EnvVariable& variable : env_variables()) EXPECT_EQ(asked[variable.name], 1) << variable.name;
}

}  // namespace
}  // namespace motley
