#pragma once

#include <sinq/core/parallel.hpp>

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>

namespace sinq_cli {

/// Seconds since it was made.
class stopwatch {
public:
  [[nodiscard]] double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// One line on stderr: how far, which tensor, GB/s, time left. Shows nothing where stderr is no terminal or if quiet.
/// Debian 12 has no progress-bar library for C++.
class progress_bar {
public:
  /// @param total_work   sum of the work of all steps, in any unit
  progress_bar(double total_work, bool quiet);
  progress_bar(const progress_bar&) = delete;
  progress_bar& operator=(const progress_bar&) = delete;
  ~progress_bar();

  /// Begins a step on one tensor; the step before counts as done.
  void begin(std::string_view name, std::size_t bytes, double work);
  /// Tells how much of the step is done, 0 to 1; false if a signal asks to stop.
  bool update(double done);
  [[nodiscard]] sinq::progress_callback callback() {
    return [this](double done) { return update(done); };
  }

private:
  void draw(double done);

  double total_work_;
  bool shown_;
  bool drawn_ = false;
  stopwatch clock_;
  double last_draw_ = -1;
  std::string name_;
  double work_before_ = 0, work_ = 0;   ///< of the steps before, of this one
  double bytes_before_ = 0, bytes_ = 0; ///< likewise
};

} // namespace sinq_cli
