#include "benchmarks/train/part_times.h"

#include <ATen/SequenceNumber.h>
#include <ATen/record_function.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <cstdint>
#include <vector>

#include "benchmarks/device.h"
#include "motley/base/clock.h"

namespace motley::bench {
namespace {

constexpr auto kKind = c10::DebugInfoKind::TEST_INFO;
constexpr const char* kOther = "other";

// Time goes to the part on top of the stack. Callbacks are plain functions: torch keeps this for them.
class Clock : public c10::DebugInfoBase {
 public:
  explicit Clock(c10::Device device) : device_(device) { restart(); }

  void restart() {
    times_.clear();
    nodes_.clear();
    stack_ = {{kOther, false, 0}};
    last_ = seconds_now();
  }

  std::map<std::string, PartTime> take() {
    pass_time();
    auto times = std::move(times_);
    restart();
    return times;
  }

  void enter(const char* part, int64_t first_node) {
    pass_time();
    stack_.push_back({part, stack_.back().backward, first_node});
  }
  void leave() {
    pass_time();
    const Running& ended = stack_.back();
    nodes_.push_back({ended.first_node, static_cast<int64_t>(at::sequence_number::peek()), ended.part});
    stack_.pop_back();
  }
  void enter_node(int64_t number) {
    pass_time();
    stack_.push_back({part_of(number), true, 0});
  }
  void leave_node() {
    pass_time();
    stack_.pop_back();
  }

 private:
  struct Running {
    std::string part;
    bool backward;
    int64_t first_node;
  };
  struct Nodes {
    int64_t first, end;
    std::string part;
  };

  void pass_time() {
    wait_for(device_);
    const double now = seconds_now();
    PartTime& time = times_[stack_.back().part];
    (stack_.back().backward ? time.backward : time.forward) += now - last_;
    last_ = now;
  }

  // Inner parts end before outer ones, so the first that holds the node is the innermost.
  std::string part_of(int64_t node) const {
    for (const Nodes& nodes : nodes_) {
      if (node >= nodes.first && node < nodes.end) return nodes.part;
    }
    return kOther;
  }

  c10::Device device_;
  std::map<std::string, PartTime> times_;
  std::vector<Running> stack_;
  std::vector<Nodes> nodes_;
  double last_ = 0;
};

Clock* clock_of_thread() { return static_cast<Clock*>(c10::ThreadLocalDebugInfo::get(kKind)); }

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& record) {
  if (Clock* clock = clock_of_thread()) {
    record.scope() == at::RecordScope::USER_SCOPE ? clock->enter(record.name(), record.seqNr())
                                                  : clock->enter_node(record.seqNr());
  }
  return nullptr;
}

void end(const at::RecordFunction& record, at::ObserverContext*) {
  if (Clock* clock = clock_of_thread()) {
    record.scope() == at::RecordScope::USER_SCOPE ? clock->leave() : clock->leave_node();
  }
}

}  // namespace

struct PartTimes::Listener {
  explicit Listener(c10::Device device) : clock(std::make_shared<Clock>(device)) {}

  std::shared_ptr<Clock> clock;
  c10::DebugInfoGuard info{kKind, clock};
  at::CallbackHandle callback = at::addThreadLocalCallback(
      at::RecordFunctionCallback(begin, end)
          .scopes({at::RecordScope::USER_SCOPE, at::RecordScope::BACKWARD_FUNCTION}));

  ~Listener() { at::removeCallback(callback); }
};

PartTimes::PartTimes(c10::Device device) : listener_(std::make_unique<Listener>(device)) {}
PartTimes::~PartTimes() = default;

std::map<std::string, PartTime> PartTimes::take() { return listener_->clock->take(); }

}  // namespace motley::bench
