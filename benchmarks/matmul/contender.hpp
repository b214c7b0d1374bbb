#pragma once

#include "expected.hpp"

#include "measure/limits.hpp"

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

namespace sinq_bench {

/// Something that multiplies tokens by a weight: a kernel of ours or a peer.
struct contender {
  std::string name, weights; ///< of the kernel, and how its weights are stored
  double weight_bytes = 0;   ///< of one matrix
  arithmetic kind = arithmetic::f32;
  double worst_error = 0; ///< beyond it the product is wrong; see output_error
  std::shared_ptr<const expected_rows> expected;
  /// Multiplies the first tokens of x by the next matrix, into y.
  std::function<void(std::size_t tokens, std::size_t threads)> multiply;
};

/// A number that goes round: which of the matrices is next.
class rotation {
public:
  explicit rotation(std::size_t count) : count_{count} {}
  [[nodiscard]] std::size_t next() { return at_ = at_ + 1 < count_ ? at_ + 1 : 0; }

private:
  std::size_t count_, at_ = 0;
};

/// How many matrices of that size it takes to fill so many bytes.
[[nodiscard]] inline std::size_t matrices_in(std::size_t bytes, std::size_t matrix_bytes) {
  return std::max<std::size_t>(1, (bytes + matrix_bytes - 1) / matrix_bytes);
}

} // namespace sinq_bench
