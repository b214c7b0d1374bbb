#pragma once

#include "expected.hpp"

#include "measure/limits.hpp"
#include "measure/rotation.hpp"

#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <string>

namespace sinq_bench {

/// Something that multiplies tokens by a weight: a kernel of ours or a peer.
struct contender {
  std::string name, weights; ///< of the kernel, and how its weights are stored
  double weight_bytes = 0;   ///< of one matrix
  arithmetic kind = arithmetic::f32;
  std::size_t fewest_bf16_tokens = std::numeric_limits<std::size_t>::max(); ///< from so many on, it multiplies bf16
  double worst_error = 0; ///< beyond it the product is wrong; see output_error
  std::shared_ptr<const expected_rows> expected;
  /// Multiplies the first tokens of x by the next matrix, into y.
  std::function<void(std::size_t tokens, std::size_t threads)> multiply;
};

} // namespace sinq_bench
