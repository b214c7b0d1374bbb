#pragma once

#include "../core/powers.hpp"
#include "sinkhorn_loops.hpp"
#include "sinkhorn_options.hpp"
#include "sinkhorn_workspace.hpp"

#include <cmath>

namespace sinq::detail {

/// The rule of the reference: see sinkhorn_normalizer.
template <class Real>
class reference_rule {
public:
  reference_rule(const sinkhorn_options& options, sinkhorn_workspace<Real>& work) : options_{options}, work_{work} {}

  /// Scales from standard deviations whose sums are in double.
  sinkhorn_report<Real> operator()(matrix_view<const Real> w, std::span<Real> row_scale, std::span<Real> col_scale) {
    return iterate(measured_matrix{w, work_}, row_scale, col_scale);
  }
  /// The same from sums in float.
  sinkhorn_report<Real> operator()(const column_tile& w, std::span<Real> row_scale, std::span<Real> col_scale) {
    return iterate(measured_tile{&w, work_}, row_scale, col_scale);
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
    const column_tile* w;
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
  sinkhorn_report<Real> iterate(Measured m, std::span<Real> row_scale, std::span<Real> col_scale) {
    const std::size_t rows = row_scale.size(), cols = col_scale.size();
    auto &scales = m.scales(), &kept = m.best_scales();
    for (auto* some : {&scales, &kept}) {
      some->row.assign(rows, 1);
      some->col.assign(cols, 1);
    }
    work_.row_factor.assign(rows, Real{1});
    work_.row_factor.resize(column_tile::whole(rows));
    work_.col_factor.assign(cols, Real{1});
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
      if (rows > 1) step(m.col(), target, m.window, from.col, scales.col, work_.col_factor);
      if (cols > 1) step(m.row(), target, m.window, from.row, scales.row, work_.row_factor);
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
        sum += std::is_same_v<Real, float> ? exponent_of(static_cast<float>(sigma)) : std::ilogb(sigma);
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
    const auto widen = [&](auto side) { run_wide<widen_loop<decltype(least)>>(side.data(), side.size(), least, most); };
    if (m.col().size() > 1) widen(m.row());
    if (m.row().size() > 1) widen(m.col());
    return std::max(static_cast<Real>(least), static_cast<Real>(options_.sigma_min));
  }

  template <class Scale>
  void step(std::span<const Scale> sigma, Real target, Real window, const std::vector<Scale>& from,
            std::vector<Scale>& to, std::vector<Real>& factor) const {
    const auto log_bound = [](float bound) { return static_cast<Scale>(std::exp(static_cast<double>(bound))); };
    const scale_step<Real, Scale> by{{options_.sigma_min, options_.sigma_max},
                                     {options_.ratio_min, options_.ratio_max},
                                     {log_bound(options_.log_scale_min), log_bound(options_.log_scale_max)},
                                     1 / static_cast<Scale>(target),
                                     window};
    run_wide<scale_step<Real, Scale>>(by, sigma.data(), sigma.size(), from.data(), to.data(), factor.data());
  }

  const sinkhorn_options& options_;
  sinkhorn_workspace<Real>& work_;
};

} // namespace sinq::detail
