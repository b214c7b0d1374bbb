#pragma once

#include "core/error.hpp"
#include "core/matrix_view.hpp"
#include "core/weight_view.hpp"
#include "pack/pack.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

namespace sinq {

/// How far an approximation W' is from a matrix W.
struct error_metrics {
  double mse = 0;                     ///< mean of (W - W')^2
  double relative_error = 0;          ///< ||W - W'|| / ||W||, Frobenius; 0 if both are zero, infinite if only W is
  double weighted_relative_error = 0; ///< the same with column j weighted: sqrt(sum w_j (W - W')^2 / sum w_j W^2)
  double max_error = 0;               ///< max |W - W'|
  double cosine = 1;                  ///< <W, W'> / (||W|| ||W'||); 1 if both are zero
  double snr_db = 0;                  ///< 20 log10(||W|| / ||W - W'||); infinite for an exact copy
  bool finite = true;                 ///< false if W' holds NaN or infinity; the rest means nothing then
};

/// Gathers error_metrics row by row, so that neither matrix need be in memory whole.
/// Numerics: f64 sums over columns from left to right and rows in the order given.
class error_accumulator {
public:
  error_accumulator() = default;
  /// @param column_weights  [K], >= 0: second moments E[x_j^2] of the inputs, or 1 / ||W_j||^2; empty: all 1
  explicit error_accumulator(std::vector<double> column_weights) : weights_{std::move(column_weights)} {}

  void add_row(std::span<const float> original, std::span<const float> approximation) {
    SINQ_ASSERT(original.size() == approximation.size() && (weights_.empty() || weights_.size() == original.size()));
    for (std::size_t j = 0; j < original.size(); ++j) {
      const double w = original[j];
      const double v = approximation[j];
      const double weight = weights_.empty() ? 1.0 : weights_[j];
      finite_ &= is_finite(approximation[j]);
      const double difference = w - v;
      square_error_ += difference * difference;
      weighted_error_ += weight * difference * difference;
      weighted_square_ += weight * w * w;
      square_ += w * w;
      approximation_square_ += v * v;
      product_ += w * v;
      max_error_ = std::max(max_error_, std::fabs(difference));
    }
    count_ += original.size();
  }

  [[nodiscard]] error_metrics result() const {
    const auto ratio = [](double error, double square) {
      if (error == 0) return 0.0;
      return square == 0 ? std::numeric_limits<double>::infinity() : std::sqrt(error / square);
    };
    error_metrics m;
    m.mse = count_ == 0 ? 0 : square_error_ / static_cast<double>(count_);
    m.relative_error = ratio(square_error_, square_);
    m.weighted_relative_error = ratio(weighted_error_, weighted_square_);
    m.max_error = max_error_;
    if (square_ != 0 || approximation_square_ != 0)
      m.cosine = square_ == 0 || approximation_square_ == 0
                     ? 0
                     : product_ / (std::sqrt(square_) * std::sqrt(approximation_square_));
    m.snr_db = m.relative_error == 0 ? std::numeric_limits<double>::infinity() : -20 * std::log10(m.relative_error);
    m.finite = finite_;
    return m;
  }

private:
  std::vector<double> weights_;
  double square_error_ = 0, weighted_error_ = 0, weighted_square_ = 0, square_ = 0;
  double approximation_square_ = 0, product_ = 0, max_error_ = 0;
  std::size_t count_ = 0;
  bool finite_ = true;
};

/// Weights that count the error of every column relative to that column: 1 / sum_i W_ij^2, and 0 for a column of zeros.
/// Stand-in for input moments where none are known: columns of large weights tend to meet small inputs.
[[nodiscard]] inline std::vector<double> column_normalizing_weights(const weight_view& w) {
  std::vector<double> squares(w.cols());
  std::vector<float> row(w.cols());
  for (std::size_t i = 0; i < w.rows(); ++i) {
    w.load(i, 0, row);
    for (std::size_t j = 0; j < row.size(); ++j)
      squares[j] += static_cast<double>(row[j]) * static_cast<double>(row[j]);
  }
  for (double& square : squares) square = square == 0 ? 0 : 1 / square;
  return squares;
}

/// Errors of a packed matrix against the weights that it came from.
/// @param column_weights  [K] or empty, for weighted_relative_error
/// @errors  errc::invalid_argument if the shapes differ
[[nodiscard]] inline result<error_metrics> measure_error(const weight_view& original, const packed_matrix& packed,
                                                         std::vector<double> column_weights = {}) {
  const matrix_format& f = packed.format;
  if (original.rows() != f.rows || original.cols() != f.cols)
    return make_error(errc::invalid_argument, "the original is ", original.rows(), " x ", original.cols(),
                      ", the packed matrix ", f.rows, " x ", f.cols);
  if (!column_weights.empty() && column_weights.size() != f.cols)
    return make_error(errc::invalid_argument, column_weights.size(), " column weights for ", f.cols, " columns");
  error_accumulator sum{std::move(column_weights)};
  std::vector<float> row(f.cols);
  std::vector<float> block(std::min(detail::rows_per_task, f.rows) * f.cols);
  for (std::size_t begin = 0; begin < f.rows; begin += detail::rows_per_task) {
    const matrix_view<float> approximation{block.data(), std::min(detail::rows_per_task, f.rows - begin), f.cols};
    dequantize_rows(packed, begin, approximation);
    for (std::size_t i = 0; i < approximation.rows(); ++i) {
      original.load(begin + i, 0, row);
      sum.add_row(row, approximation.row(i));
    }
  }
  return sum.result();
}

/// Stored bits for each weight of a packed matrix: codes, scales, zero points, t and padding, all counted.
[[nodiscard]] inline double bits_per_weight(const packed_matrix& packed) {
  return bits_per_weight(packed.format);
}

} // namespace sinq
