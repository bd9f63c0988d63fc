// Tells the thread sanitizer about the fork and join of OpenMP regions. libgomp is not instrumented, so
// without this every result that one thread writes in at::parallel_for and another reads after it looks like
// a race; with it real races inside such regions are still found. Linked into every program by the preset
// tsan only.
#include <dlfcn.h>

#include <cstdlib>

extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void GOMP_parallel(void (*body)(void*), void* data, unsigned num_threads, unsigned flags);
}

namespace {

struct Region {
  void (*body)(void*);
  void* data;
  // Two addresses: with one, a thread that begins late would seem to wait for those that ended early.
  char fork = 0;
  char join = 0;
};

void run_in_region(void* argument) {
  auto* region = static_cast<Region*>(argument);
  __tsan_acquire(&region->fork);
  region->body(region->data);
  __tsan_release(&region->join);
}

}  // namespace

void GOMP_parallel(void (*body)(void*), void* data, unsigned num_threads, unsigned flags) {
  using Function = void (*)(void (*)(void*), void*, unsigned, unsigned);
  static const auto original = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "GOMP_parallel"));
  if (original == nullptr) std::abort();  // a test program without OpenMP does not come here
  Region region{.body = body, .data = data};
  __tsan_release(&region.fork);
  original(run_in_region, &region, num_threads, flags);
  __tsan_acquire(&region.join);
}
