#include "motley/base/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <utility>

#include "motley/base/clock.h"
#include "motley/base/format.h"

namespace motley {
namespace {

constexpr double kRateMemoryS = 20;  // the rate is an average over about this long

double interval(const ProgressOptions& options, const ProgressPlace& place) {
  return place.terminal ? options.terminal_interval_s : options.line_interval_s;
}

}  // namespace

ProgressPlace ProgressPlace::standard_error() {
  winsize size{};
  const bool sized = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0;
  return {&std::cerr, isatty(STDERR_FILENO) == 1, sized ? size.ws_col : size_t{0}, seconds_now};
}

Progress::Progress(ProgressOptions options, ProgressPlace place)
    : options_(std::move(options)),
      place_(std::move(place)),
      start_s_(place_.now_s()),
      last_write_s_(start_s_),
      last_rate_s_(start_s_),
      last_rate_done_(options_.already),
      done_(options_.already) {}

Progress::~Progress() {
  if (open_line_) *place_.out << std::endl;
}

bool Progress::due() const {
  return !finished_ && (!wrote_ || place_.now_s() - last_write_s_ >= interval(options_, place_));
}

// An exponential average over time, so that one slow step does not throw the estimate about.
void Progress::advance(int64_t done, double now) {
  done_ = done;
  const double elapsed = now - last_rate_s_;
  if (elapsed <= 0) return;
  const double current = static_cast<double>(done - last_rate_done_) / elapsed;
  // The first measurements weigh by their share of the time so far.
  const double age = std::min(now - start_s_, kRateMemoryS);
  const double weight = 1 - std::exp(-elapsed / std::max(age - elapsed, 1e-9));
  rate_ = rate_ == 0 ? current : rate_ + weight * (current - rate_);
  last_rate_s_ = now;
  last_rate_done_ = done;
}

void Progress::update(int64_t done, std::string_view details) {
  done_ = done;
  if (!due()) return;
  const double now = place_.now_s();
  advance(done, now);
  write(line(now, details), /*last=*/false);
  last_write_s_ = now;
}

void Progress::finish(std::string_view details) {
  if (finished_) return;
  finished_ = true;
  const double now = place_.now_s();
  const double elapsed = now - start_s_;
  const auto done = static_cast<double>(done_ - options_.already);
  rate_ = elapsed > 0 ? done / elapsed : 0;
  std::string text =
      options_.what + " " + std::to_string(done_) + " " + options_.unit + "s in " + format_duration(elapsed);
  if (rate_ > 0) text += ", " + format_rate(rate_, options_.unit + "s");
  if (!details.empty()) text.append(", ").append(details);
  write(text, /*last=*/true);
}

std::string Progress::line(double now, std::string_view details) const {
  std::string text = options_.what + " " + std::to_string(done_);
  if (options_.total > 0) text += "/" + std::to_string(options_.total);
  text += " " + options_.unit + "s";
  if (rate_ > 0) {
    text += ", " + format_rate(rate_, options_.unit + "s");
    if (options_.total > 0) {
      const auto left = static_cast<double>(std::max<int64_t>(options_.total - done_, 0));
      text += ", " + format_duration(left / rate_) + " left";
    }
  } else if (now > start_s_) {
    text += ", " + format_duration(now - start_s_);
  }
  if (!details.empty()) text.append(", ").append(details);
  return text;
}

void Progress::write(const std::string& text, bool last) {
  wrote_ = true;
  if (place_.terminal) {
    // A line that wraps could not be rewritten.
    const size_t room = place_.columns > 1 ? place_.columns - 1 : text.size();
    *place_.out << "\r\033[K" << std::string_view(text).substr(0, room);
    open_line_ = !last;
    if (last) *place_.out << '\n';
  } else {
    *place_.out << text << '\n';
  }
  place_.out->flush();
}

}  // namespace motley
