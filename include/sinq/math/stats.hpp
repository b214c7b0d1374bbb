#pragma once

#include "../core/aligned_buffer.hpp"
#include "../core/matrix_view.hpp"
#include "../core/wide.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

namespace sinq {

/// Scratch of the statistics: kept between calls, it spares their allocations.
struct stats_workspace {
  std::vector<double> row_sum;
  std::vector<double> row_square;
  std::vector<double> col_sum;
  std::vector<double> col_square;
};

namespace detail {

/// Partial sums of a reduction over a row: element j belongs to lane j mod 16, and the lanes are added as a tree,
/// 16 to 8 to 4 to 2 to 1. Scalar code and every vector unit add in this one order.
inline constexpr std::size_t reduction_lanes = 16;
using lane_sums = std::array<double, reduction_lanes>;

[[nodiscard]] inline double add_lanes(lane_sums lanes) {
  for (std::size_t half = reduction_lanes / 2; half > 0; half /= 2)
    for (std::size_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

/// Below this ratio of variance to mean square the one-pass formula has lost too many bits.
inline constexpr double cancellation_limit = 0x1p-24;

/// sqrt of the unbiased variance from n, sum and sum of squares, or -1 where cancellation spoils it.
[[nodiscard]] inline double stddev_from_sums(double n, double sum, double square) {
  const double spread = square - sum * sum / n;
  if (spread <= cancellation_limit * square) return square == 0 ? 0 : -1;
  return std::sqrt(spread / (n - 1));
}

/// The same in two passes: get(k) is element k of n.
template <class Get>
[[nodiscard]] double stddev_two_pass(std::size_t n, Get&& get) {
  double sum = 0;
  for (std::size_t k = 0; k < n; ++k) sum += get(k);
  const double mean = sum / static_cast<double>(n);
  double square = 0;
  for (std::size_t k = 0; k < n; ++k) square += (get(k) - mean) * (get(k) - mean);
  return std::sqrt(square / static_cast<double>(n - 1));
}

} // namespace detail

SINQ_SEPARATE_ROUNDING_BEGIN
namespace detail {

/// Sums over the rows and columns of A[i][j] = m[i][j] * col_factor[j] * row_factor[i], and of its squares.
/// Rows add in 16 lanes, columns from the first row to the last.
template <class Real>
struct sum_loop {
  static constexpr std::size_t rows_at_once = 2;

  struct sums {
    double* row;        ///< [N]
    double* row_square; ///< [N]
    double* col;        ///< [K], added to
    double* col_square; ///< [K], added to
  };

  template <std::size_t W>
  SINQ_INLINE static void run(matrix_view<const Real> m, const Real* col_factor, const Real* row_factor,
                              const sums& to) {
    std::size_t i = 0;
    for (; i + rows_at_once <= m.rows(); i += rows_at_once) add_rows<W, rows_at_once>(m, i, col_factor, row_factor, to);
    for (; i < m.rows(); ++i) add_rows<W, 1>(m, i, col_factor, row_factor, to);
  }

private:
  template <std::size_t W, std::size_t Rows>
  SINQ_INLINE static void add_rows(const matrix_view<const Real>& m, std::size_t i, const Real* col_factor,
                                   const Real* row_factor, const sums& to) {
    constexpr std::size_t width = W < 2 ? 1 : W / 2; // doubles at a time
    constexpr std::size_t pieces = reduction_lanes / width;
    vec<double, width> sum[Rows][pieces]{}, square[Rows][pieces]{};
    const Real* from[Rows];
    for (std::size_t r = 0; r < Rows; ++r) from[r] = m.data() + (i + r) * m.stride();
    std::size_t j = 0;
    for (; j + reduction_lanes <= m.cols(); j += reduction_lanes)
      for (std::size_t piece = 0; piece < pieces; ++piece) {
        const std::size_t at_col = j + piece * width;
        vec<Real, width> factor;
        vec<double, width> col, col_square;
        load(col_factor + at_col, factor);
        load(to.col + at_col, col);
        load(to.col_square + at_col, col_square);
        for (std::size_t r = 0; r < Rows; ++r) {
          vec<Real, width> values;
          load(from[r] + at_col, values);
          values = (values * factor) * row_factor[i + r];
          const vec<double, width> a = __builtin_convertvector(values, vec<double, width>);
          sum[r][piece] += a;
          square[r][piece] += a * a;
          col += a;
          col_square += a * a;
        }
        store(col, to.col + at_col);
        store(col_square, to.col_square + at_col);
      }
    for (std::size_t r = 0; r < Rows; ++r) {
      lane_sums lanes, square_lanes;
      for (std::size_t piece = 0; piece < pieces; ++piece) {
        store(sum[r][piece], lanes.data() + piece * width);
        store(square[r][piece], square_lanes.data() + piece * width);
      }
      for (std::size_t lane = 0; j + lane < m.cols(); ++lane) {
        const double a = static_cast<double>((from[r][j + lane] * col_factor[j + lane]) * row_factor[i + r]);
        lanes[lane] += a;
        square_lanes[lane] += a * a;
        to.col[j + lane] += a;
        to.col_square[j + lane] += a * a;
      }
      to.row[i + r] = add_lanes(lanes);
      to.row_square[i + r] = add_lanes(square_lanes);
    }
  }
};

} // namespace detail

SINQ_SEPARATE_ROUNDING_END

/// Standard deviations of the rows and columns of A[i][j] = m[i][j] * col_factor[j] * row_factor[i], in one pass.
/// sigma = sqrt(sum (a - mean)^2 / (n - 1))
/// @param row_std  [N], @param col_std [K]; a side of length 1 has no spread: the rows of a single column and the
///                 columns of a single row get 0
/// Numerics: A in Real; sums in f64 in a fixed order (rows in 16 lanes, columns from the first row to the last), where
/// the squares of floats are exact, so that fused and separate multiply-adds agree; rows and columns whose mean dwarfs
/// their spread are done again in two passes. Relative error below 1e-8, before the rounding of A to Real.
template <class Real>
void scaled_stddev(matrix_view<const Real> m, std::span<const Real> col_factor, std::span<const Real> row_factor,
                   std::span<double> row_std, std::span<double> col_std, stats_workspace& workspace) {
  const std::size_t rows = m.rows();
  const std::size_t cols = m.cols();
  SINQ_ASSERT(col_factor.size() == cols && row_factor.size() == rows && row_std.size() == rows &&
              col_std.size() == cols);
  workspace.row_sum.resize(rows);
  workspace.row_square.resize(rows);
  workspace.col_sum.assign(cols, 0.0);
  workspace.col_square.assign(cols, 0.0);
  const typename detail::sum_loop<Real>::sums to{workspace.row_sum.data(), workspace.row_square.data(),
                                                 workspace.col_sum.data(), workspace.col_square.data()};
  if constexpr (std::is_same_v<Real, float>)
    detail::run_wide_exact<detail::sum_loop<Real>>(m, col_factor.data(), row_factor.data(), to);
  else
    detail::run_wide<detail::sum_loop<Real>>(m, col_factor.data(), row_factor.data(), to);
  const auto stddev = [](std::size_t n, double sum, double square, auto&& get) {
    if (n <= 1) return 0.0;
    const double sigma = detail::stddev_from_sums(static_cast<double>(n), sum, square);
    return sigma < 0 ? detail::stddev_two_pass(n, get) : sigma;
  };
  const auto entry = [&](std::size_t i, std::size_t j) -> double {
    return (m.data()[i * m.stride() + j] * col_factor[j]) * row_factor[i];
  };
  for (std::size_t i = 0; i < rows; ++i)
    row_std[i] =
        stddev(cols, workspace.row_sum[i], workspace.row_square[i], [&](std::size_t j) { return entry(i, j); });
  for (std::size_t j = 0; j < cols; ++j)
    col_std[j] =
        stddev(rows, workspace.col_sum[j], workspace.col_square[j], [&](std::size_t i) { return entry(i, j); });
}

/// Standard deviations of the rows [N] and columns [K] of a matrix.
struct row_col_stddev {
  std::vector<double> row;
  std::vector<double> col;
};

/// Standard deviations of all rows and columns (unbiased, ddof = 1); see scaled_stddev for numerics.
template <class T>
[[nodiscard]] row_col_stddev stddev(matrix_view<T> m) {
  using Real = std::remove_const_t<T>;
  row_col_stddev result{std::vector<double>(m.rows()), std::vector<double>(m.cols())};
  const std::vector<Real> ones(std::max(m.rows(), m.cols()), Real{1});
  stats_workspace workspace;
  scaled_stddev<Real>(m, std::span{ones}.first(m.cols()), std::span{ones}.first(m.rows()), result.row, result.col,
                      workspace);
  return result;
}

/// How unevenly rows and columns spread: the largest of all their standard deviations over the smallest.
/// I = max(row, col) / max(1e-12, min(row, col)); sides of length 1 do not count, and a single element has I = 1.
/// Source: arXiv 2509.22944, section 2; huawei-csl/SINQ sinq/sinkhorn.py (imbalance).
/// @return  rounded to Real, and its operands before: with float, differences below rounding noise compare as equal
template <class Real>
[[nodiscard]] Real imbalance(std::span<const double> row_std, std::span<const double> col_std) {
  double low = std::numeric_limits<double>::max();
  double high = 0;
  const auto widen = [&](std::span<const double> side) {
    const auto [least, most] = std::minmax_element(side.begin(), side.end());
    low = std::min(low, *least);
    high = std::max(high, *most);
  };
  if (row_std.size() == 1 && col_std.size() == 1) return Real{1};
  if (col_std.size() > 1) widen(row_std);
  if (row_std.size() > 1) widen(col_std);
  return static_cast<Real>(high) / std::max(static_cast<Real>(1e-12), static_cast<Real>(low));
}

/// Imbalance of a matrix.
template <class T>
[[nodiscard]] std::remove_const_t<T> imbalance(matrix_view<T> m) {
  const row_col_stddev sigma = stddev(m);
  return imbalance<std::remove_const_t<T>>(std::span<const double>{sigma.row}, std::span<const double>{sigma.col});
}

/// Non-central kurtosis of all entries, E[x^4] / E[x^2]^2, 3 for a Gaussian; 0 for a matrix of zeros.
/// Numerics: f64, each row in 16 lanes. Source: huawei-csl/SINQ sinq/optimize.py (kurtosis).
template <class T>
[[nodiscard]] double kurtosis(matrix_view<T> m) {
  double second = 0;
  double fourth = 0;
  for (std::size_t i = 0; i < m.rows(); ++i) {
    detail::lane_sums row_second{};
    detail::lane_sums row_fourth{};
    for (std::size_t j = 0; j < m.cols(); ++j) {
      const double square = static_cast<double>(m(i, j)) * static_cast<double>(m(i, j));
      row_second[j % detail::reduction_lanes] += square;
      row_fourth[j % detail::reduction_lanes] += square * square;
    }
    second += detail::add_lanes(row_second);
    fourth += detail::add_lanes(row_fourth);
  }
  const double count = static_cast<double>(m.rows()) * static_cast<double>(m.cols());
  return second == 0 ? 0 : fourth * count / (second * second);
}

} // namespace sinq
