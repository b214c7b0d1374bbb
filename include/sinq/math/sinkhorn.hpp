#pragma once

#include "../core/convert.hpp"
#include "../core/error.hpp"
#include "../core/types.hpp"
#include "stats.hpp"

#include <cmath>

namespace sinq {

/// Constants of the Sinkhorn iteration; the defaults are those of the reference code.
struct sinkhorn_options {
  int iterations = 16;    ///< at most, >= 0; the iteration stops at the first one that raises the imbalance
  float ratio_min = 0.7f; ///< bounds of one step: sigma / target is clamped to [ratio_min, ratio_max]
  float ratio_max = 2.0f;
  float log_scale_min = -0.3f; ///< bounds of the natural logarithm of every scale
  float log_scale_max = 10.0f;
  float sigma_min = 1e-3f; ///< bounds of a standard deviation, in the units of the reference window
  float sigma_max = 1e3f;
  float target_margin = 1e-6f; ///< added to the smallest standard deviation to give the target
  bool stop_when_worse = true; ///< false: run all iterations and keep the best
  bool f64_sums = false; ///< standard deviations from sums in f64, which tell iterates of equal worth apart like the
                         ///< reference more often; false: from sums in the type of the weights
  bool any_magnitude = true; ///< false: the bounds of sigma are absolute, as in the reference, for weights of any size
};

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
  stats_workspace stats;
  std::vector<double> row, col;             // the scales of the current iterate
  std::vector<Real> row_factor, col_factor; // their reciprocals
  std::vector<double> row_std, col_std;
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

/// out[i][j] = (w[i][j] / col[j]) / row[i]
template <class Real>
struct divide_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(matrix_view<const Real> w, const Real* row, const Real* col, matrix_view<Real> out) {
    vec<Real, W> x, by;
    for (std::size_t i = 0; i < w.rows(); ++i) {
      const Real* const from = w.data() + i * w.stride();
      Real* const to = out.data() + i * out.stride();
      std::size_t j = 0;
      for (; j + W <= w.cols(); j += W) {
        load(from + j, x);
        load(col + j, by);
        store((x / by) / row[i], to + j);
      }
      for (; j < w.cols(); ++j) to[j] = (from[j] / col[j]) / row[i];
    }
  }
};

/// One step of some scales: scale *= clamp(clamp(sigma) / target), clamped, and factor = window / scale.
template <class Real>
struct scale_step {
  struct bounds {
    double low, high;
  };
  bounds sigma, ratio, scale;
  double per_target;
  Real window;

  template <std::size_t W>
  SINQ_INLINE static void run(const scale_step& by, const double* sigma, std::size_t n, double* scale, Real* factor) {
    constexpr std::size_t width = W < 2 ? 1 : W / 2;
    std::size_t k = 0;
    for (; k + width <= n; k += width) move<width>(by, sigma + k, scale + k, factor + k);
    for (; k < n; ++k) move<1>(by, sigma + k, scale + k, factor + k);
  }

private:
  template <std::size_t W>
  SINQ_INLINE static void move(const scale_step& by, const double* sigma, double* scale, Real* factor) {
    vec<double, W> x, old;
    load(sigma, x);
    load(scale, old);
    clamp(x, by.sigma);
    x *= by.per_target;
    clamp(x, by.ratio);
    x *= old;
    clamp(x, by.scale);
    store(x, scale);
    store(by.window / __builtin_convertvector(x, vec<Real, W>), factor);
  }
  template <class Vector>
  SINQ_INLINE static void clamp(Vector& x, const bounds& to) {
    const Vector low = Vector{} + to.low, high = Vector{} + to.high;
    x = x > low ? x : low;
    x = x < high ? x : high;
  }
};

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
/// Numerics: scales as products instead of sums of logarithms (the same iteration without exp and log), kept in f64;
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
    start(w, work);
    std::fill(row_scale.begin(), row_scale.end(), Real{1});
    std::fill(col_scale.begin(), col_scale.end(), Real{1});
    const Real window = options_.any_magnitude ? window_factor(work) : Real{1};
    if (window != 1) {
      std::fill(work.row_factor.begin(), work.row_factor.end(), window);
      std::fill(work.col_factor.begin(), work.col_factor.end(), window);
      measure(w, work);
    }
    const Real target = smallest_sigma(work) + static_cast<Real>(options_.target_margin);
    sinkhorn_report<Real> report;
    report.imbalance_before = imbalance<Real>(work.row_std, work.col_std);
    Real best = report.imbalance_before;
    for (int k = 0; k < options_.iterations; ++k) {
      if (k > 0) measure(w, work);
      ++report.evaluated;
      const Real current = imbalance<Real>(work.row_std, work.col_std);
      if (current <= best) {
        best = current;
        round_to(work.row, row_scale);
        round_to(work.col, col_scale);
      } else if (options_.stop_when_worse) {
        break;
      }
      if (w.rows() > 1) step(work.col_std, target, window, work.col, work.col_factor);
      if (w.cols() > 1) step(work.row_std, target, window, work.row, work.row_factor);
    }
    report.imbalance_after = best;
    return report;
  }

  /// W_hat = diag(row_scale)^-1 W diag(col_scale)^-1, by two divisions an element, columns first.
  template <class R>
  static void divide(matrix_view<const R> w, std::span<const R> row_scale, std::span<const R> col_scale,
                     matrix_view<R> out) {
    detail::run_wide<detail::divide_loop<R>>(w, row_scale.data(), col_scale.data(), out);
  }

  /// Whether the iteration can run with these options.
  [[nodiscard]] static result<void> check(const sinkhorn_options& o) {
    if (o.iterations < 0)
      return make_error(errc::invalid_argument, "sinkhorn: iterations is ", o.iterations, ", expected >= 0");
    if (!(o.ratio_min > 0 && o.ratio_min <= 1 && o.ratio_max >= 1 && is_finite(o.ratio_max)))
      return make_error(errc::invalid_argument, "sinkhorn: step bounds are [", o.ratio_min, ", ", o.ratio_max,
                        "], expected 0 < ratio_min <= 1 <= ratio_max");
    if (!(o.log_scale_min <= 0 && o.log_scale_max >= 0 && o.log_scale_min >= -40 && o.log_scale_max <= 40))
      return make_error(errc::invalid_argument, "sinkhorn: log scale bounds are [", o.log_scale_min, ", ",
                        o.log_scale_max, "], expected -40 <= log_scale_min <= 0 <= log_scale_max <= 40");
    if (!(o.sigma_min > 0 && o.sigma_min <= o.sigma_max && is_finite(o.sigma_max) && o.target_margin >= 0))
      return make_error(errc::invalid_argument, "sinkhorn: sigma bounds are [", o.sigma_min, ", ", o.sigma_max,
                        "] and the margin ", o.target_margin, ", expected 0 < sigma_min <= sigma_max, margin >= 0");
    return {};
  }

private:
  void start(matrix_view<const Real> w, sinkhorn_workspace<Real>& work) const {
    work.row.assign(w.rows(), 1.0);
    work.col.assign(w.cols(), 1.0);
    work.row_factor.assign(w.rows(), Real{1});
    work.col_factor.assign(w.cols(), Real{1});
    work.row_std.resize(w.rows());
    work.col_std.resize(w.cols());
    measure(w, work);
  }

  void measure(matrix_view<const Real> w, sinkhorn_workspace<Real>& work) const {
    const auto find = options_.f64_sums ? scaled_stddev<Real, double> : scaled_stddev<Real, Real>;
    find(w, work.col_factor, work.row_factor, work.row_std, work.col_std, work.stats);
  }

  /// 1, or the power of 2^8 that, on rows and columns both, brings the mean binary exponent of the standard deviations
  /// into [-9, 7). Half of the power for each side: the whole one need not fit Real.
  static Real window_factor(const sinkhorn_workspace<Real>& work) {
    const std::vector<double>& side = work.col_std.size() > 1 ? work.row_std : work.col_std;
    long sum = 0;
    long count = 0;
    for (const double sigma : side)
      if (sigma > 0) {
        sum += std::ilogb(sigma);
        ++count;
      }
    if (count == 0) return Real{1};
    const long shifted = static_cast<long>(std::floor(static_cast<double>(sum) / static_cast<double>(count))) + 9;
    const long periods = shifted >= 0 ? shifted / 16 : -((-shifted + 15) / 16);
    return std::ldexp(Real{1}, static_cast<int>(-8 * periods));
  }

  static void round_to(std::span<const double> from, std::span<Real> to) {
    for (std::size_t k = 0; k < from.size(); ++k) to[k] = static_cast<Real>(from[k]);
  }

  [[nodiscard]] Real clamp_sigma(double sigma) const {
    return std::clamp(static_cast<Real>(sigma), static_cast<Real>(options_.sigma_min),
                      static_cast<Real>(options_.sigma_max));
  }

  [[nodiscard]] Real smallest_sigma(const sinkhorn_workspace<Real>& work) const {
    Real least = static_cast<Real>(options_.sigma_max);
    if (work.col_std.size() > 1)
      for (const double sigma : work.row_std) least = std::min(least, clamp_sigma(sigma));
    if (work.row_std.size() > 1)
      for (const double sigma : work.col_std) least = std::min(least, clamp_sigma(sigma));
    return least;
  }

  void step(std::span<const double> sigma, Real target, Real window, std::span<double> scale,
            std::span<Real> factor) const {
    const detail::scale_step<Real> by{
        {options_.sigma_min, options_.sigma_max},
        {options_.ratio_min, options_.ratio_max},
        {std::exp(static_cast<double>(options_.log_scale_min)), std::exp(static_cast<double>(options_.log_scale_max))},
        1 / static_cast<double>(target),
        window};
    detail::run_wide<detail::scale_step<Real>>(by, sigma.data(), sigma.size(), scale.data(), factor.data());
  }

  sinkhorn_options options_;
};

} // namespace sinq
