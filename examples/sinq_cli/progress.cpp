#include "progress.hpp"

#include "signals.hpp"
#include "text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include <sys/ioctl.h>
#include <unistd.h>

namespace sinq_cli {

namespace {

std::size_t terminal_columns() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::string time_text(double seconds) {
  if (seconds < 100) return fmt::format("{:.0f} s", seconds);
  const auto minutes = static_cast<long>(seconds / 60 + 0.5);
  return minutes < 100 ? fmt::format("{} min", minutes) : fmt::format("{} h {} min", minutes / 60, minutes % 60);
}

} // namespace

progress_bar::progress_bar(double total_work, bool quiet)
    : total_work_{std::max(total_work, 1.0)}, shown_{!quiet && isatty(STDERR_FILENO) == 1} {}

progress_bar::~progress_bar() {
  if (drawn_) std::fputs("\r\x1b[K", stderr);
}

void progress_bar::begin(std::string_view name, std::size_t bytes, double work) {
  work_before_ += work_;
  bytes_before_ += bytes_;
  work_ = work;
  bytes_ = static_cast<double>(bytes);
  name_ = one_line(name);
  update(0);
}

bool progress_bar::update(double done) {
  constexpr double seconds_between = 0.1;
  const double now = clock_.seconds();
  if (shown_ && now - last_draw_ >= seconds_between) {
    last_draw_ = now;
    draw(done);
  }
  return goes_on();
}

void progress_bar::draw(double done) {
  constexpr std::size_t bar_columns = 24;
  const double fraction = std::clamp((work_before_ + done * work_) / total_work_, 0.0, 1.0);
  const double seconds = std::max(clock_.seconds(), 1e-3);
  const auto filled = static_cast<std::size_t>(fraction * static_cast<double>(bar_columns));
  const std::string left = fraction < 0.01 ? "" : time_text(seconds / fraction - seconds) + " left  ";
  const std::string bar = std::string(filled, '=') + std::string(bar_columns - filled, ' ');
  std::string line = fmt::format("[{}] {:3.0f} %  {:.3f} GB/s  {}{}", bar, 100 * fraction,
                                 (bytes_before_ + done * bytes_) / seconds * 1e-9, left, name_);
  line.resize(std::min(line.size(), terminal_columns() - 1)); // a cut character shows as one strange one
  fmt::print(stderr, "\r{}\x1b[K", line);
  std::fflush(stderr);
  drawn_ = true;
}

} // namespace sinq_cli
