#pragma once

#include <algorithm>
#include <cstddef>

namespace sinq_bench {

/// How many matrices of that size it takes to fill so many bytes.
[[nodiscard]] inline std::size_t matrices_in(std::size_t bytes, std::size_t matrix_bytes) {
  return std::max<std::size_t>(1, (bytes + matrix_bytes - 1) / matrix_bytes);
}

/// Which of the matrices is next: they take turns, so that none is in a cache when it comes again.
class rotation {
public:
  explicit rotation(std::size_t count) : count_{count} {}
  [[nodiscard]] std::size_t next() { return at_ = at_ + 1 < count_ ? at_ + 1 : 0; }

private:
  std::size_t count_, at_ = 0;
};

} // namespace sinq_bench
