#pragma once

/// Interleaved timing: in every round each subject has its turn, so that what the machine does meanwhile falls on all
/// of them, and ratios are taken between samples of one round.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <functional>
#include <span>
#include <thread>
#include <vector>

namespace sinq_bench {

/// Median and ends of some samples.
struct spread {
  double median = 0, least = 0, most = 0;
};

/// @pre there are samples
[[nodiscard]] inline spread spread_of(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  const std::size_t half = samples.size() / 2;
  const double median = samples.size() % 2 != 0 ? samples[half] : (samples[half - 1] + samples[half]) / 2;
  return {median, samples.front(), samples.back()};
}

/// Something that is timed.
struct subject {
  std::function<void()> call;
  double work = 1;               ///< what a call does, in bytes or products or whatever rates are asked of
  std::size_t calls = 1;         ///< of a round; settled by `run_rounds`
  std::vector<double> seconds{}; ///< of a call, one sample for each round

  /// Work a second in each round.
  [[nodiscard]] std::vector<double> rates() const {
    std::vector<double> rates;
    for (const double s : seconds) rates.push_back(work / s);
    return rates;
  }
};

/// How the rates of two subjects compare, round by round. @pre both ran in the same rounds
[[nodiscard]] inline spread rate_ratio(const subject& a, const subject& b) {
  std::vector<double> ratios;
  for (std::size_t n = 0; n < a.seconds.size(); ++n) ratios.push_back(a.work / a.seconds[n] / (b.work / b.seconds[n]));
  return spread_of(ratios);
}

/// How the seconds of two subjects compare, round by round. @pre both ran in the same rounds
[[nodiscard]] inline spread time_ratio(const subject& a, const subject& b) {
  std::vector<double> ratios;
  for (std::size_t n = 0; n < a.seconds.size(); ++n) ratios.push_back(a.seconds[n] / b.seconds[n]);
  return spread_of(ratios);
}

[[nodiscard]] inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// How long subjects are run.
struct round_options {
  std::size_t rounds = 7;
  double least_seconds = 0.02;                 ///< of a turn: short calls are repeated until it is filled
  double pause_seconds = 0.002;                ///< before a turn, in which the threads of the last subject fall asleep
  std::function<double()> clock = seconds_now; ///< for tests
};

/// Times subjects in turns. Calls that are repeated within a turn have one before them that is not counted.
inline void run_rounds(std::span<subject> subjects, const round_options& options) {
  for (subject& s : subjects) {
    s.call();
    const double begin = options.clock();
    s.call();
    const double seconds = std::max(options.clock() - begin, 1e-9);
    s.calls = static_cast<std::size_t>(std::max(1.0, std::ceil(options.least_seconds / seconds)));
  }
  for (std::size_t round = 0; round < options.rounds; ++round)
    for (subject& s : subjects) {
      std::this_thread::sleep_for(std::chrono::duration<double>(options.pause_seconds));
      if (s.calls > 1) s.call();
      const double begin = options.clock();
      for (std::size_t n = 0; n < s.calls; ++n) s.call();
      s.seconds.push_back((options.clock() - begin) / static_cast<double>(s.calls));
    }
}

} // namespace sinq_bench
