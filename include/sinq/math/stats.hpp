#pragma once

#include "../core/aligned_buffer.hpp"
#include "../core/matrix_view.hpp"
#include "block_sums.hpp"

#include <algorithm>
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

/// sqrt of the unbiased variance in two passes, get(k) being element k of n.
template <class Get>
[[nodiscard]] double stddev_two_pass(std::size_t n, Get&& get) {
  std::size_t first = 0;
  while (first < n && get(first) == 0) ++first;
  if (first == n) return 0; // zeros come here each time, underflow being as likely
  double sum = 0;
  for (std::size_t k = 0; k < n; ++k) sum += get(k);
  const double mean = sum / static_cast<double>(n);
  double square = 0;
  for (std::size_t k = 0; k < n; ++k) square += (get(k) - mean) * (get(k) - mean);
  return std::sqrt(square / static_cast<double>(n - 1));
}

/// Standard deviations of lines (rows or columns) of n elements from their sums, which are used up;
/// get(line, k) is element k.
template <class Get>
void stddev_of_lines(std::size_t n, std::span<double> sums, std::span<const double> squares, std::span<double> to,
                     Get&& get) {
  if (n <= 1) return std::fill(to.begin(), to.end(), 0.0);
  const double terms = static_cast<double>(n);
  constexpr double limit = 0x1p-24; // of the ratio of variance to mean square: below it too many bits are lost
  run_wide<variance_loop>(variance_loop{terms, limit, terms * std::numeric_limits<double>::min()}, sums.data(),
                          squares.data(), to.size());
  for (std::size_t line = 0; line < to.size(); ++line)
    to[line] = sums[line] >= 0 ? std::sqrt(sums[line])
                               : stddev_two_pass(n, [&](std::size_t k) -> double { return get(line, k); });
}

} // namespace detail

/// Standard deviations of the rows and columns of A[i][j] = m[i][j] * col_factor[j] * row_factor[i], in one pass.
/// sigma = sqrt(sum (a - mean)^2 / (n - 1))
/// @param row_std  [N], @param col_std [K]; a side of length 1 has no spread: the rows of a single column and the
///                 columns of a single row get 0
/// Numerics: A in Real, sums in f64 in the fixed order of sum_loop; rows and columns whose mean dwarfs their spread, or
/// whose squares overflow or underflow, are done again in two passes. Relative error below 1e-8, before the rounding of
/// A to Real.
template <class Real>
void scaled_stddev(matrix_view<const Real> m, std::span<const Real> col_factor, std::span<const Real> row_factor,
                   std::span<double> row_std, std::span<double> col_std, stats_workspace& workspace) {
  const std::size_t rows = m.rows();
  const std::size_t cols = m.cols();
  SINQ_ASSERT(col_factor.size() == cols && row_factor.size() == rows && row_std.size() == rows &&
              col_std.size() == cols);
  const std::size_t whole_blocks = (rows + detail::sum_rows - 1) / detail::sum_rows * detail::sum_rows;
  workspace.row_sum.assign(whole_blocks, 0.0);
  workspace.row_square.assign(whole_blocks, 0.0);
  workspace.col_sum.assign(cols, 0.0);
  workspace.col_square.assign(cols, 0.0);
  const typename detail::sum_loop<Real>::sums to{workspace.row_sum.data(), workspace.row_square.data(),
                                                 workspace.col_sum.data(), workspace.col_square.data()};
  detail::run_wide<detail::sum_loop<Real>>(m, col_factor.data(), row_factor.data(), to);
  const auto entry = [&](std::size_t i, std::size_t j) -> double {
    return (m.data()[i * m.stride() + j] * col_factor[j]) * row_factor[i];
  };
  detail::stddev_of_lines(cols, workspace.row_sum, workspace.row_square, row_std, entry);
  detail::stddev_of_lines(rows, workspace.col_sum, workspace.col_square, col_std,
                          [&](std::size_t j, std::size_t i) { return entry(i, j); });
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
template <class Real, class Sigma>
[[nodiscard]] Real imbalance(std::span<const Sigma> row_std, std::span<const Sigma> col_std) {
  Sigma low = std::numeric_limits<Sigma>::max();
  Sigma high = 0;
  const auto widen = [&](std::span<const Sigma> side) {
    detail::run_wide<detail::widen_loop<Sigma>>(side.data(), side.size(), low, high);
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
