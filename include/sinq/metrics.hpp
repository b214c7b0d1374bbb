#pragma once

#include "core/error.hpp"
#include "core/matrix_view.hpp"
#include "core/parallel.hpp"
#include "core/weight_view.hpp"
#include "math/input_moments.hpp"
#include "pack/pack.hpp"

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <span>
#include <vector>

namespace sinq {

/// How far an approximation W' is from a matrix W.
struct error_metrics {
  double mse = 0;                     ///< mean of (W - W')^2
  double relative_error = 0;          ///< ||W - W'|| / ||W||, Frobenius; 0 if both are zero, infinite if only W is
  double weighted_relative_error = 0; ///< the same with column j weighted: sqrt(sum w_j (W - W')^2 / sum w_j W^2)
  std::optional<double> output_error; ///< ||X (W - W')^T|| / ||X W^T|| for inputs X of known second moments
  double max_error = 0;               ///< max |W - W'|
  double cosine = 1;                  ///< <W, W'> / (||W|| ||W'||); 1 if both are zero
  double snr_db = 0;                  ///< 20 log10(||W|| / ||W - W'||); infinite for an exact copy
  bool finite = true;                 ///< false if W' holds NaN or infinity; the rest means nothing then
};

namespace detail {

/// The sums behind error_metrics, over any part of a matrix.
struct error_sums {
  double square_error = 0, weighted_error = 0, weighted_square = 0, square = 0;
  double approximation_square = 0, product = 0, max_error = 0;
  double output_error = 0, output_square = 0;
  bool has_output = false;
  std::size_t count = 0;
  bool finite = true;

  /// @param weights  [K] or empty: all 1
  void add_row(std::span<const float> original, std::span<const float> approximation, std::span<const double> weights) {
    SINQ_ASSERT(original.size() == approximation.size() && (weights.empty() || weights.size() == original.size()));
    for (std::size_t j = 0; j < original.size(); ++j) {
      const double w = original[j];
      const double v = approximation[j];
      const double weight = weights.empty() ? 1.0 : weights[j];
      finite &= is_finite(approximation[j]);
      const double difference = w - v;
      square_error += difference * difference;
      weighted_error += weight * difference * difference;
      weighted_square += weight * w * w;
      square += w * w;
      approximation_square += v * v;
      product += w * v;
      max_error = std::max(max_error, std::fabs(difference));
    }
    count += original.size();
  }

  /// Adds the sums over another part.
  void merge(const error_sums& other) {
    square_error += other.square_error;
    weighted_error += other.weighted_error;
    weighted_square += other.weighted_square;
    square += other.square;
    approximation_square += other.approximation_square;
    product += other.product;
    max_error = std::max(max_error, other.max_error);
    output_error += other.output_error;
    output_square += other.output_square;
    has_output |= other.has_output;
    count += other.count;
    finite &= other.finite;
  }

  [[nodiscard]] error_metrics result() const {
    const auto ratio = [](double error, double whole) {
      if (error <= 0) return 0.0; // rounded second moments can make a tiny sum negative
      return whole <= 0 ? std::numeric_limits<double>::infinity() : std::sqrt(error / whole);
    };
    error_metrics m;
    m.mse = count == 0 ? 0 : square_error / static_cast<double>(count);
    m.relative_error = ratio(square_error, square);
    m.weighted_relative_error = ratio(weighted_error, weighted_square);
    if (has_output) m.output_error = ratio(output_error, output_square);
    m.max_error = max_error;
    if (square != 0 || approximation_square != 0)
      m.cosine = square == 0 || approximation_square == 0
                     ? 0
                     : product / (std::sqrt(square) * std::sqrt(approximation_square));
    m.snr_db = m.relative_error == 0 ? std::numeric_limits<double>::infinity() : -20 * std::log10(m.relative_error);
    m.finite = finite;
    return m;
  }
};

/// What rows of a weight, or of its error, make of a layer's inputs: sum_i E (x . a_i)^2 = tr(A H A^T), H = E[x x^T].
/// H is the hessian; without one it is that of the sample of inputs; without either, diagonal, of second_moment.
/// Numerics: f64, of f32 moments. Cost O(K) for each of A's elements, or O(tokens), or O(1).
class output_energy {
public:
  using row_major = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  /// @param inputs  borrowed; checked (input_moments::check)
  explicit output_energy(const input_moments& inputs) : inputs_{inputs} {}

  /// Whether anything is known that gives second moments.
  [[nodiscard]] bool known() const {
    return inputs_.hessian.size() > 0 || inputs_.inputs.size() > 0 || !inputs_.second_moment.empty();
  }

  /// @param a  [rows x K]
  [[nodiscard]] double operator()(const row_major& a) const {
    if (inputs_.hessian.size() > 0) return of_hessian(a);
    if (inputs_.inputs.size() > 0) return of_sample(a);
    const Eigen::Map<const Eigen::VectorXf> moments{inputs_.second_moment.data(), a.cols()};
    return a.array().square().matrix().colwise().sum().dot(moments.cast<double>());
  }

private:
  static constexpr Eigen::Index panel = 128; // rows of the moments that are in f64 at once

  [[nodiscard]] double of_hessian(const row_major& a) const {
    double sum = 0;
    for (Eigen::Index j = 0; j < inputs_.hessian.rows(); j += panel) {
      const Eigen::Index count = std::min(panel, inputs_.hessian.rows() - j);
      const row_major part = inputs_.hessian.middleRows(j, count).cast<double>();
      sum += (a * part.transpose()).cwiseProduct(a.middleCols(j, count)).sum();
    }
    return sum;
  }

  [[nodiscard]] double of_sample(const row_major& a) const {
    double sum = 0;
    for (Eigen::Index t = 0; t < inputs_.inputs.rows(); t += panel) {
      const Eigen::Index count = std::min(panel, inputs_.inputs.rows() - t);
      const row_major part = inputs_.inputs.middleRows(t, count).cast<double>();
      sum += (a * part.transpose()).squaredNorm();
    }
    return sum / static_cast<double>(inputs_.inputs.rows());
  }

  const input_moments& inputs_;
};

} // namespace detail

/// Gathers error_metrics row by row, so that neither matrix need be in memory whole.
/// Numerics: f64 sums over columns from left to right and rows in the order given.
class error_accumulator {
public:
  error_accumulator() = default;
  /// @param column_weights  [K], >= 0: second moments E[x_j^2] of the inputs, or 1 / ||W_j||^2; empty: all 1
  explicit error_accumulator(std::vector<double> column_weights) : weights_{std::move(column_weights)} {}

  void add_row(std::span<const float> original, std::span<const float> approximation) {
    sums_.add_row(original, approximation, weights_);
  }
  /// Adds what another accumulator, of the same weights, has gathered of other rows.
  void merge(const error_accumulator& other) { sums_.merge(other.sums_); }

  [[nodiscard]] error_metrics result() const { return sums_.result(); }

private:
  std::vector<double> weights_;
  detail::error_sums sums_;
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

namespace detail {

/// The sums over rows [begin, end) of a packed matrix.
[[nodiscard]] inline error_sums sum_errors(const weight_view& original, const packed_matrix& packed,
                                           std::span<const double> column_weights, const output_energy* energy,
                                           std::size_t begin, std::size_t end) {
  const std::size_t cols = packed.format.cols;
  std::vector<float> row(cols);
  std::vector<float> values((end - begin) * cols);
  const matrix_view<float> approximation{values.data(), end - begin, cols};
  dequantize_rows(packed, begin, approximation);
  const auto kept = static_cast<Eigen::Index>(energy != nullptr ? end - begin : 0);
  output_energy::row_major whole(kept, static_cast<Eigen::Index>(cols));
  output_energy::row_major difference(kept, static_cast<Eigen::Index>(cols));
  error_sums sums;
  for (std::size_t i = 0; i < approximation.rows(); ++i) {
    original.load(begin + i, 0, row);
    sums.add_row(row, approximation.row(i), column_weights);
    if (energy == nullptr) continue;
    for (std::size_t j = 0; j < cols; ++j) {
      const auto r = static_cast<Eigen::Index>(i), c = static_cast<Eigen::Index>(j);
      whole(r, c) = row[j];
      difference(r, c) = static_cast<double>(row[j]) - static_cast<double>(approximation(i, j));
    }
  }
  if (energy == nullptr) return sums;
  sums.has_output = true;
  sums.output_square = (*energy)(whole);
  sums.output_error = (*energy)(difference);
  return sums;
}

} // namespace detail

/// Errors of a packed matrix against the weights that it came from.
/// output_error = sqrt(tr(D H D^T) / tr(W H W^T)),  D = W - W', H = E[x x^T]: the layer's error on inputs x
/// @param column_weights  [K] or empty, for weighted_relative_error
/// @param inputs          for output_error, borrowed; where they are not given or give no second moments, it is empty.
///                        H is their hessian, else that of their sample, else the diagonal matrix of second_moment
/// @errors  errc::invalid_argument if the shapes differ, errc::non_finite (inputs), errc::cancelled
/// Numerics: f64 sums over blocks of 64 rows, added in their order: the same for any executor.
[[nodiscard]] inline result<error_metrics> measure_error(const weight_view& original, const packed_matrix& packed,
                                                         const std::vector<double>& column_weights = {},
                                                         const input_moments* inputs = nullptr,
                                                         const run_options& run = {}) {
  const matrix_format& f = packed.format;
  if (original.rows() != f.rows || original.cols() != f.cols)
    return make_error(errc::invalid_argument, "the original is ", original.rows(), " x ", original.cols(),
                      ", the packed matrix ", f.rows, " x ", f.cols);
  if (!column_weights.empty() && column_weights.size() != f.cols)
    return make_error(errc::invalid_argument, column_weights.size(), " column weights for ", f.cols, " columns");
  if (inputs != nullptr)
    if (result<void> ok = inputs->check(f.cols); !ok) return ok.error();
  std::optional<detail::output_energy> energy;
  if (inputs != nullptr) energy.emplace(*inputs);
  const detail::output_energy* const wanted = energy && energy->known() ? &*energy : nullptr;
  std::vector<detail::error_sums> blocks((f.rows + detail::rows_per_task - 1) / detail::rows_per_task);
  const auto sum_block = [&](std::size_t begin, std::size_t end) -> result<void> {
    blocks[begin / detail::rows_per_task] = detail::sum_errors(original, packed, column_weights, wanted, begin, end);
    return {};
  };
  if (result<void> ok = parallel_for(run.on(), f.rows, detail::rows_per_task, sum_block, run.progress); !ok)
    return ok.error();
  detail::error_sums sums;
  for (const detail::error_sums& block : blocks) sums.merge(block);
  return sums.result();
}

/// Stored bits for each weight of a packed matrix: codes, scales, zero points, t and padding, all counted.
[[nodiscard]] inline double bits_per_weight(const packed_matrix& packed) {
  return bits_per_weight(packed.format);
}

} // namespace sinq
