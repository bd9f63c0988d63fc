#pragma once
// Every environment variable that Motley reads is read here, once.
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "motley/base/log.h"

namespace motley {

constexpr int kMaxThreads = 1024;

struct EnvVariable {
  const char* name;
  const char* values;   // what it may be set to
  const char* meaning;  // one sentence
};

// The table that `motley doctor` prints and docs/configuration.md lists.
const std::vector<EnvVariable>& env_variables();
// What one of them is set to in this process, as written; empty: not set.
std::string env_value(const EnvVariable& variable);

struct Environment {
  std::optional<std::string> cpu_kernels;  // a name of the table; none: the best there is
  LogLevel log_level = LogLevel::kInfo;
  std::optional<int> num_threads;  // none: as many as the processor offers this process
};

// Reads the table through `get` (nullptr: not set). An empty value counts as not set; a wrong one is a
// UserError that names the variable.
Environment read_environment(const std::function<const char*(const char*)>& get);

// This process's environment, read at the first call.
const Environment& environment();

// cuBLAS gives the same bits each time only with a workspace of fixed size, which it reads from
// CUBLAS_WORKSPACE_CONFIG before its first product. Sets that variable unless it is set.
void fix_cublas_workspace();
// libtorch asks for huge pages for tensors of 2 MiB and more where THP_MEM_ALLOC_ENABLE is 1. Sets that
// variable unless it is set.
void ask_for_huge_pages();

}  // namespace motley
