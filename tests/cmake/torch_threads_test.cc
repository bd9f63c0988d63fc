// What cmake/motley_torch.cmake promises about threads.
#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <link.h>

#include <mutex>
#include <set>
#include <string>
#include <thread>

namespace {

TEST(TorchThreads, ParallelForUsesThem) {
  at::set_num_threads(2);
  std::mutex mutex;
  std::set<std::thread::id> threads;
  at::parallel_for(0, 2, 1, [&](int64_t, int64_t) {
    const std::lock_guard<std::mutex> lock(mutex);
    threads.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(threads.size(), 2u);
}

TEST(TorchThreads, OneOpenMpRuntimeIsLoaded) {
  std::set<std::string> runtimes;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* found) {
        const std::string path = info->dlpi_name;
        for (const char* name : {"/libgomp", "/libomp", "/libiomp"}) {
          if (path.find(name) != std::string::npos) static_cast<std::set<std::string>*>(found)->insert(path);
        }
        return 0;
      },
      &runtimes);
  EXPECT_EQ(runtimes.size(), 1u) << testing::PrintToString(runtimes);
}

}  // namespace
