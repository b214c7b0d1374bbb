#pragma once

#include "support/oracle.hpp"

#include <sinq/pack/pack.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace sinq_bench {

/// How far outputs are from what they should be.
struct output_error {
  double relative = 0; ///< |y - expected| / |expected|, of all that is compared
  double worst = 0;    ///< the largest |y - expected|, in root mean squares of expected
};

/// Rows of an output, evenly chosen, as x W^T in double, so that nothing is timed that multiplies wrongly.
class expected_rows {
public:
  static constexpr std::size_t most_rows = 64;

  /// @param x  [M x K]
  expected_rows(const sinq::packed_matrix& w, sinq::matrix_view<const float> x) {
    const std::size_t count = std::min(most_rows, w.format.rows);
    sinq_test::oracle::MatrixXd weights(count, w.format.cols);
    std::vector<float> row(w.format.cols);
    for (std::size_t n = 0; n < count; ++n) {
      rows_.push_back(count == 1 ? 0 : n * (w.format.rows - 1) / (count - 1));
      sinq::dequantize_rows(w, rows_.back(), {row.data(), 1, row.size()});
      for (std::size_t j = 0; j < row.size(); ++j)
        weights(static_cast<Eigen::Index>(n), static_cast<Eigen::Index>(j)) = double{row[j]};
    }
    products_ = sinq_test::oracle::matmul(sinq_test::oracle::to_double(x), weights);
  }

  /// Compares the outputs of the first tokens. @param y  [up to M x N]; NaN is infinitely far
  [[nodiscard]] output_error operator()(sinq::matrix_view<const float> y) const {
    double wrong = 0, size = 0, worst = 0;
    for (std::size_t m = 0; m < y.rows(); ++m)
      for (std::size_t n = 0; n < rows_.size(); ++n) {
        const double expected = products_(static_cast<Eigen::Index>(m), static_cast<Eigen::Index>(n));
        const double difference = std::fabs(double{y(m, rows_[n])} - expected);
        if (!std::isfinite(difference)) return {infinite, infinite};
        wrong += difference * difference;
        size += expected * expected;
        worst = std::max(worst, difference);
      }
    const double mean = size / static_cast<double>(y.rows() * rows_.size());
    return {std::sqrt(wrong / size), worst / std::sqrt(mean)};
  }

private:
  static constexpr double infinite = std::numeric_limits<double>::infinity();

  std::vector<std::size_t> rows_;
  sinq_test::oracle::MatrixXd products_; ///< [M x rows]
};

} // namespace sinq_bench
