#pragma once
// Shows how long work goes on: one line rewritten in place on a terminal, plain lines in a log.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <string>
#include <string_view>

namespace motley {

struct ProgressOptions {
  std::string what;                  // "train"
  std::string unit;                  // what is counted, for the rate: "step", "token", "file"
  int64_t total = 0;                 // 0: not known, and then no time left is shown
  int64_t already = 0;               // done by an earlier run; not part of the rate
  double line_interval_s = 10;       // least time between lines in a log
  double terminal_interval_s = 0.1;  // least time between rewrites on a terminal
};

// Where progress goes and what time it is; the default is standard error and the steady clock.
struct ProgressPlace {
  std::ostream* out = nullptr;
  bool terminal = false;
  size_t columns = 0;  // a terminal's width, to which lines are cut; 0: not known
  std::function<double()> now_s;
  static ProgressPlace standard_error();
};

class Progress {
 public:
  explicit Progress(ProgressOptions options, ProgressPlace place = ProgressPlace::standard_error());
  ~Progress();  // leaves a terminal on a fresh line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `done` of total units are done; `details` is shown behind, e.g. "loss 2.31". Cheap when nothing is due.
  void update(int64_t done, std::string_view details = {});
  // True if update() would write now: spares the caller making details that nobody sees.
  bool due() const;
  // Writes the last line whatever the interval, with the whole time taken.
  void finish(std::string_view details = {});

 private:
  void advance(int64_t done, double now);
  std::string line(double now, std::string_view details) const;
  void write(const std::string& text, bool last);

  ProgressOptions options_;
  ProgressPlace place_;
  double start_s_;
  double last_write_s_;
  double last_rate_s_;
  int64_t last_rate_done_;
  int64_t done_;
  double rate_ = 0;
  bool wrote_ = false;
  bool open_line_ = false;
  bool finished_ = false;
};

}  // namespace motley
