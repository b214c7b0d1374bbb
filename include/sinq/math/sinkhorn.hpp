#pragma once

#include "../core/convert.hpp"
#include "../core/error.hpp"
#include "../core/powers.hpp"
#include "../core/types.hpp"
#include "sinkhorn_loops.hpp"
#include "sinkhorn_options.hpp"
#include "stats.hpp"
#include "tile_spread.hpp"

#include <cmath>

namespace sinq {

/// How evenly a tile spread before and after, and how many iterates were evaluated.
template <class Real>
struct sinkhorn_report {
  Real imbalance_before = 1;
  Real imbalance_after = 1;
  int evaluated = 0;
};

/// Scratch of the normaliser: kept between calls, it spares their allocations.
template <class Real>
struct sinkhorn_workspace {
  template <class Scale>
  struct scales {
    std::vector<Scale> row, col;
  };
  std::vector<Real> row_factor, col_factor; // the reciprocals of the current iterate's scales
  // where standard deviations come from sums in float
  detail::column_tile tile, scaled_tile;
  detail::tile_spread spread;
  scales<float> in_float, best_in_float;
  // where they come from sums in double
  stats_workspace stats;
  std::vector<double> row_std, col_std;
  scales<double> in_double, best_in_double;
};

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
/// W = diag(row_scale) * W_hat * diag(col_scale); each step divides both scales' logarithms' error
/// log(sigma / target) out, with target = the smallest standard deviation, and the iterate of least imbalance is kept.
/// A side of length 1 has no spread and keeps scale 1.
/// Numerics: scales as products instead of sums of logarithms (the same iteration without exp and log);
/// iterates and the imbalances that are compared in Real; standard deviations as in scaled_stddev. The absolute bounds
/// of the reference suit weights of ordinary size: where the typical standard deviation of the rows lies outside [2^-9,
/// 2^7), the iteration sees the matrix times that power of 2^16 which brings it inside, so that tiny and huge weights
/// are balanced like any others. Where the iteration has converged to the last bits, rounding alone decides which of
/// two equivalent iterates is best: they share row_scale * col_scale and differ in a common factor, in the reference
/// code from machine to machine. Cost O(iterations * N * K). Source: arXiv 2509.22944, Algorithm 1; huawei-csl/SINQ
/// sinq/sinkhorn.py (sinkhorn_log).
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
    return out;
  }

  /// The scales alone, without allocations of its own once the workspace has grown.
  /// @pre w is finite and not empty, row_scale has N and col_scale K entries, the options are valid
  sinkhorn_report<Real> find_scales(matrix_view<const Real> w, std::span<Real> row_scale, std::span<Real> col_scale,
                                    sinkhorn_workspace<Real>& work) const {
    if constexpr (std::is_same_v<Real, float>)
      if (!options_.f64_sums) {
        work.tile.assign(w);
        return find_scales(work.tile, row_scale, col_scale, work);
      }
    return iterate(measured_matrix{w, work}, row_scale, col_scale, work);
  }
  /// The same of a tile in columns.
  sinkhorn_report<Real> find_scales(const detail::column_tile& w, std::span<Real> row_scale, std::span<Real> col_scale,
                                    sinkhorn_workspace<Real>& work) const requires std::same_as<Real, float> {
    if (options_.f64_sums) {
      std::vector<Real> values(w.rows() * w.cols());
      for (std::size_t n = 0; n < values.size(); ++n) values[n] = w(n / w.cols(), n % w.cols());
      return find_scales(matrix_view<const Real>{values.data(), w.rows(), w.cols()}, row_scale, col_scale, work);
    }
    return iterate(measured_tile{&w, work}, row_scale, col_scale, work);
  }

  /// W_hat = diag(row_scale)^-1 W diag(col_scale)^-1, by two divisions an element, columns first.
  template <class R>
  static void divide(matrix_view<const R> w, std::span<const R> row_scale, std::span<const R> col_scale,
                     matrix_view<R> out) {
    detail::run_wide<detail::divide_loop<R>>(w, row_scale.data(), col_scale.data(), out);
  }

private:
  /// A matrix whose standard deviations, times the factors in the workspace, come from sums in double.
  struct measured_matrix {
    matrix_view<const Real> w;
    sinkhorn_workspace<Real>& work;
    Real window = 1; ///< that both factors of all rows and columns contain

    void measure() {
      work.row_std.resize(w.rows());
      work.col_std.resize(w.cols());
      scaled_stddev<Real>(w, work.col_factor, std::span{work.row_factor}.first(w.rows()), work.row_std, work.col_std,
                          work.stats);
    }
    void look_through(Real power) {
      window = power;
      std::fill(work.row_factor.begin(), work.row_factor.end(), power);
      std::fill(work.col_factor.begin(), work.col_factor.end(), power);
    }
    [[nodiscard]] std::span<const double> row() const { return work.row_std; }
    [[nodiscard]] std::span<const double> col() const { return work.col_std; }
    [[nodiscard]] auto& scales() { return work.in_double; }
    [[nodiscard]] auto& best_scales() { return work.best_in_double; }
  };
  /// The same of a tile, from sums in float.
  struct measured_tile {
    const detail::column_tile* w;
    sinkhorn_workspace<Real>& work;
    Real window = 1; ///< always: squares of tiny weights would be lost before factors are multiplied in

    void measure() { work.spread.measure(*w, work.row_factor, work.col_factor); }
    void look_through(Real power) {
      work.scaled_tile.assign_scaled(*w, power);
      w = &work.scaled_tile;
    }
    [[nodiscard]] std::span<const float> row() const { return work.spread.row(); }
    [[nodiscard]] std::span<const float> col() const { return work.spread.col(); }
    [[nodiscard]] auto& scales() { return work.in_float; }
    [[nodiscard]] auto& best_scales() { return work.best_in_float; }
  };

  template <class Measured>
  sinkhorn_report<Real> iterate(Measured m, std::span<Real> row_scale, std::span<Real> col_scale,
                                sinkhorn_workspace<Real>& work) const {
    const std::size_t rows = row_scale.size(), cols = col_scale.size();
    auto &scales = m.scales(), &kept = m.best_scales();
    for (auto* some : {&scales, &kept}) {
      some->row.assign(rows, 1);
      some->col.assign(cols, 1);
    }
    work.row_factor.assign(rows, Real{1});
    work.row_factor.resize(detail::column_tile::whole(rows));
    work.col_factor.assign(cols, Real{1});
    m.measure();
    if (const Real window = options_.any_magnitude ? window_factor(m) : Real{1}; window != 1) {
      m.look_through(window);
      m.measure();
    }
    const Real target = smallest_sigma(m) + static_cast<Real>(options_.target_margin);
    sinkhorn_report<Real> report;
    report.imbalance_before = imbalance<Real>(m.row(), m.col());
    Real best = report.imbalance_before;
    for (int k = 0; k < options_.iterations; ++k) {
      if (k > 0) m.measure();
      ++report.evaluated;
      const Real current = imbalance<Real>(m.row(), m.col());
      const bool better = current <= best;
      if (!better && options_.stop_when_worse) break;
      if (better) {
        best = current;
        std::swap(scales, kept);
      }
      const auto& from = better ? kept : scales;
      if (rows > 1) step(m.col(), target, m.window, from.col, scales.col, work.col_factor);
      if (cols > 1) step(m.row(), target, m.window, from.row, scales.row, work.row_factor);
    }
    report.imbalance_after = best;
    std::copy(kept.row.begin(), kept.row.end(), row_scale.begin());
    std::copy(kept.col.begin(), kept.col.end(), col_scale.begin());
    return report;
  }

  /// 1, or the power of 2^8 that, on rows and columns both, brings the mean binary exponent of the standard deviations
  /// into [-9, 7). Half of the power for each side: the whole one need not fit Real.
  template <class Measured>
  static Real window_factor(const Measured& m) {
    long sum = 0;
    long count = 0;
    for (const auto sigma : m.col().size() > 1 ? m.row() : m.col())
      if (sigma > 0) {
        sum += std::is_same_v<Real, float> ? detail::exponent_of(static_cast<float>(sigma)) : std::ilogb(sigma);
        ++count;
      }
    if (count == 0) return Real{1};
    const long shifted = static_cast<long>(std::floor(static_cast<double>(sum) / static_cast<double>(count))) + 9;
    const long periods = shifted >= 0 ? shifted / 16 : -((-shifted + 15) / 16);
    return std::ldexp(Real{1}, static_cast<int>(-8 * periods));
  }

  template <class Measured>
  [[nodiscard]] Real smallest_sigma(const Measured& m) const {
    auto least = static_cast<std::remove_cv_t<typename decltype(m.row())::element_type>>(options_.sigma_max);
    auto most = least;
    const auto widen = [&](auto side) {
      detail::run_wide<detail::widen_loop<decltype(least)>>(side.data(), side.size(), least, most);
    };
    if (m.col().size() > 1) widen(m.row());
    if (m.row().size() > 1) widen(m.col());
    return std::max(static_cast<Real>(least), static_cast<Real>(options_.sigma_min));
  }

  template <class Scale>
  void step(std::span<const Scale> sigma, Real target, Real window, const std::vector<Scale>& from,
            std::vector<Scale>& to, std::vector<Real>& factor) const {
    const auto log_bound = [](float bound) { return static_cast<Scale>(std::exp(static_cast<double>(bound))); };
    const detail::scale_step<Real, Scale> by{{options_.sigma_min, options_.sigma_max},
                                             {options_.ratio_min, options_.ratio_max},
                                             {log_bound(options_.log_scale_min), log_bound(options_.log_scale_max)},
                                             1 / static_cast<Scale>(target),
                                             window};
    detail::run_wide<detail::scale_step<Real, Scale>>(by, sigma.data(), sigma.size(), from.data(), to.data(),
                                                      factor.data());
  }

  sinkhorn_options options_;
};

} // namespace sinq
