#pragma once

#include "../core/convert.hpp"
#include "../core/error.hpp"
#include "../core/types.hpp"
#include "reference_rule.hpp"
#include "sinkhorn_loops.hpp"
#include "sinkhorn_options.hpp"
#include "sinkhorn_workspace.hpp"

namespace sinq {

/// A matrix whose rows and columns spread evenly, and the scales that lead back: W = diag(row) * matrix * diag(col).
template <class Real>
class normalized_matrix {
public:
  std::vector<Real> values;    ///< [N x K] row-major
  std::vector<Real> row_scale; ///< [N], > 0
  std::vector<Real> col_scale; ///< [K], > 0
  sinkhorn_report<Real> report;

  [[nodiscard]] matrix_view<const Real> matrix() const { return {values.data(), row_scale.size(), col_scale.size()}; }
};

namespace detail {

/// Index of the first entry that is not finite, or their number.
template <class Real>
[[nodiscard]] std::size_t find_non_finite(std::span<const Real> values) {
  if constexpr (std::is_same_v<Real, float>)
    if (all_finite(values)) return values.size();
  return static_cast<std::size_t>(
      std::find_if(values.begin(), values.end(), [](Real value) { return !is_finite(value); }) - values.begin());
}

} // namespace detail

/// Balances the spread of rows and columns so that quantization error is shared between them.
/// W = diag(row_scale) * W_hat * diag(col_scale)
/// alternating:  r_i = sigma_i (W / t), then t_j = sigma_j (W / r), until columns were even before they were moved: see
///               detail::alternating_scales. Fewer passes than the reference's, and more even.
/// reference:    each step divides both scales' logarithms' error log(sigma / target) out, with target = the smallest
///               standard deviation, and the iterate of least imbalance is kept.
/// A side of length 1 has no spread; of a single column both scales are 1, of a single row t is 1.
/// Numerics of the reference rule: scales as products instead of sums of logarithms (the same iteration without exp and
/// log); iterates and the imbalances that are compared in Real; standard deviations as in scaled_stddev. The absolute
/// bounds of the reference suit weights of ordinary size: where the typical standard deviation of the rows lies outside
/// [2^-9, 2^7), the iteration sees the matrix times that power of 2^16 which brings it inside, so that tiny and huge
/// weights are balanced like any others. Where the iteration has converged to the last bits, rounding alone decides
/// which of two equivalent iterates is best: they share row_scale * col_scale and differ in a common factor, in the
/// reference code from machine to machine. Cost O(iterations * N * K). Source: arXiv 2509.22944, Algorithm 1;
/// huawei-csl/SINQ sinq/sinkhorn.py (sinkhorn_log).
template <class Real>
class sinkhorn_normalizer {
public:
  sinkhorn_normalizer() = default;
  sinkhorn_normalizer(const sinkhorn_options& options) : options_{options} {}

  [[nodiscard]] const sinkhorn_options& options() const { return options_; }

  /// @param w  [N x K], finite, as one tile
  /// @errors   errc::empty_matrix, errc::non_finite (names the first row and column), errc::invalid_argument
  [[nodiscard]] result<normalized_matrix<Real>> operator()(matrix_view<const Real> w) const {
    if (w.empty()) return make_error(errc::empty_matrix, "sinkhorn: the matrix is ", w.rows(), " x ", w.cols());
    if (result<void> valid = check(options_); !valid) return valid.error();
    for (std::size_t i = 0; i < w.rows(); ++i)
      if (const std::size_t j = detail::find_non_finite(w.row(i)); j < w.cols())
        return make_error(errc::non_finite, "sinkhorn: non-finite value at row ", i, ", column ", j);
    normalized_matrix<Real> out;
    out.values.resize(w.rows() * w.cols());
    out.row_scale.resize(w.rows());
    out.col_scale.resize(w.cols());
    sinkhorn_workspace<Real> workspace;
    out.report = find_scales(w, out.row_scale, out.col_scale, workspace);
    divide<Real>(w, out.row_scale, out.col_scale, {out.values.data(), w.rows(), w.cols()});
    if (alternates()) {
      out.report.imbalance_before = imbalance(w);
      out.report.imbalance_after = imbalance(out.matrix());
    }
    return out;
  }

  /// Whether the rows of a tile of so many columns can be taken by alternating_scales as they come from memory.
  [[nodiscard]] bool begins_early(std::size_t cols) const {
    return alternates() && !options_.f64_sums && options_.iterations > 0 && cols > 1;
  }
  /// Whether the rule is the alternating one.
  [[nodiscard]] bool alternates() const {
    return options_.rule.value_or(sinkhorn_rule::alternating) == sinkhorn_rule::alternating;
  }

  /// The scales alone, without allocations of its own once the workspace has grown; the alternating rule does not
  /// report imbalances then.
  /// @pre w is finite and not empty, row_scale has N and col_scale K entries, the options are valid
  sinkhorn_report<Real> find_scales(matrix_view<const Real> w, std::span<Real> row_scale, std::span<Real> col_scale,
                                    sinkhorn_workspace<Real>& work) const {
    if constexpr (std::is_same_v<Real, float>)
      if (!options_.f64_sums) {
        work.tile.assign(w);
        return find_scales(work.tile, row_scale, col_scale, work);
      }
    if (alternates()) return alternate(w, row_scale, col_scale);
    return detail::reference_rule<Real>{options_, work}(w, row_scale, col_scale);
  }
  /// The same of a tile in columns.
  /// @param begun  work.alternating has taken all its rows
  sinkhorn_report<Real> find_scales(const detail::column_tile& w, std::span<Real> row_scale, std::span<Real> col_scale,
                                    sinkhorn_workspace<Real>& work,
                                    bool begun = false) const requires std::same_as<Real, float> {
    if (options_.f64_sums) {
      std::vector<Real> values(w.rows() * w.cols());
      for (std::size_t n = 0; n < values.size(); ++n) values[n] = w(n / w.cols(), n % w.cols());
      return find_scales(matrix_view<const Real>{values.data(), w.rows(), w.cols()}, row_scale, col_scale, work);
    }
    if (alternates()) return alternate(w, row_scale, col_scale, work.alternating, begun);
    return detail::reference_rule<Real>{options_, work}(w, row_scale, col_scale);
  }

  /// W_hat = diag(row_scale)^-1 W diag(col_scale)^-1, by two divisions an element, columns first.
  template <class R>
  static void divide(matrix_view<const R> w, std::span<const R> row_scale, std::span<const R> col_scale,
                     matrix_view<R> out) {
    detail::run_wide<detail::divide_loop<R>>(w, row_scale.data(), col_scale.data(), out);
  }

private:
  /// The alternating rule on a tile.
  sinkhorn_report<Real> alternate(const detail::column_tile& w, std::span<Real> row_scale, std::span<Real> col_scale,
                                  detail::alternating_scales& by, bool begun) const {
    if (!begun) by.start(w.rows(), w.cols());
    for (bool uneven = w.cols() > 1; uneven && by.passes() < options_.iterations; begun = false) {
      if (!begun) by.add_all(w);
      uneven = by.end_pass(w.rows());
    }
    for (std::size_t i = 0; i < row_scale.size(); ++i) row_scale[i] = 1 / by.row_factor()[i];
    std::copy(by.col_scale().begin(), by.col_scale().end(), col_scale.begin());
    return {1, 1, by.passes()};
  }
  /// The same in double, of weights in rows.
  sinkhorn_report<Real> alternate(matrix_view<const Real> w, std::span<Real> row_scale,
                                  std::span<Real> col_scale) const {
    const detail::alternating_in_double scales = detail::alternate_in_double(w, options_.iterations);
    std::copy(scales.row.begin(), scales.row.end(), row_scale.begin());
    std::copy(scales.col.begin(), scales.col.end(), col_scale.begin());
    return {1, 1, scales.passes};
  }

  sinkhorn_options options_;
};

} // namespace sinq
