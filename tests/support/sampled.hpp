#pragma once

#include <cstddef>
#include <iostream>

namespace sinq_test {

/// Which of all combinations are tried: one in `stride`, where programs run slowly. Says in the end how many those
/// were.
class sampled {
public:
  static constexpr std::size_t stride = SINQ_TEST_STRIDE;

  sampled() = default;
  sampled(const sampled&) = delete;
  sampled& operator=(const sampled&) = delete;
  ~sampled() {
    if (stride > 1)
      std::cout << "tried " << (seen_ + stride - 1) / stride << " of " << seen_ << " combinations (SINQ_TEST_STRIDE)"
                << std::endl;
  }

  [[nodiscard]] bool take() { return seen_++ % stride == 0; }

private:
  std::size_t seen_ = 0;
};

} // namespace sinq_test
