#pragma once

#include <algorithm>
#include <span>
#include <vector>

namespace sinq_quality {

/// What a choice costs, and what it leaves undone.
struct trade_off {
  double bits_per_weight = 0;
  double error = 0;
};

/// Whether each is on the Pareto front: no other costs no more and errs no more, and less in one of the two.
[[nodiscard]] inline std::vector<bool> pareto_front(std::span<const trade_off> choices) {
  std::vector<bool> front;
  for (const trade_off& one : choices)
    front.push_back(std::none_of(choices.begin(), choices.end(), [&](const trade_off& other) {
      return other.bits_per_weight <= one.bits_per_weight && other.error <= one.error &&
             (other.bits_per_weight < one.bits_per_weight || other.error < one.error);
    }));
  return front;
}

} // namespace sinq_quality
