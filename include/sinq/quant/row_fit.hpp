#pragma once

#include "../core/powers.hpp"
#include "group_fit.hpp"
#include "quantized_matrix.hpp"
#include "rtn.hpp"

#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

SINQ_SEPARATE_ROUNDING_BEGIN

namespace sinq::detail {

/// Value with the precision of its storage type and any exponent: `pack` moves what its range lacks into t.
/// @pre |value| < 2^110
[[nodiscard]] inline float round_precision(aux_dtype aux, float value) {
  if (aux == aux_dtype::f32) return value;
  const float factor = aux == aux_dtype::f16 ? 0x1p13f + 1 : 0x1p16f + 1; // Dekker's splitting: f32 has 24 bits
  const float scaled = value * factor;
  return scaled - (scaled - value);
}

/// The smallest number of that precision that is not below value. @pre value >= 0
[[nodiscard]] inline float round_precision_up(aux_dtype aux, double value) {
  const float rounded = round_precision(aux, static_cast<float>(value));
  const double step = aux == aux_dtype::bf16 ? 0x1p-8 : aux == aux_dtype::f16 ? 0x1p-11 : 0x1p-24;
  return double{rounded} >= value ? rounded : round_precision(aux, static_cast<float>(value * (1 + 2 * step)));
}

/// Fits scales, zero points and codes of up to 32 rows to what will be stored: the scratch of one task.
///
///   search   (s, z) of every group by fit_groups, or those that are there
///   scales   base = max s / (2^scale_bits - 1) over a super-group; u from s / base, rounded down and up
///   zeros    for each of these the best zero point; base from the farthest of a super-group; rounded down and up
///   choose   the pair with the least error; codes
template <class Grid>
class row_fitter {
public:
  /// @param search  false: keep the scales and zero points that q has, but for what storage changes
  row_fitter(quantized_matrix& q, const Grid& grid, const fit_options& options, bool search)
      : q_{q}, f_{q.format}, grid_{grid}, options_{options}, search_{search},
        bounds_{f_.has_zero ? std::numeric_limits<float>::quiet_NaN() : f_.symmetric_zero(),
                f_.zero_bits != 0 ? 2 * std::max(std::fabs(grid.lowest()), std::fabs(grid.highest()))
                                  : max_zero(f_.aux)} {
    const std::size_t span =
        f_.scale_bits != 0 || f_.zero_bits != 0 ? (f_.super_group == 0 ? f_.groups() : f_.super_group) : 1;
    groups_at_once_ = span;
    values_ = {span * f_.group_size * fit_lanes, aligned_buffer<float>::uninitialized};
    fits_.resize(span);
  }

  /// @param rows     [count x K] the weights over t, count <= 32
  /// @param weights  [K] of the squared errors, > 0
  void operator()(std::size_t row_begin, matrix_view<const float> rows, std::span<const float> weights) {
    row_begin_ = row_begin;
    count_ = rows.rows();
    for (std::size_t g0 = 0; g0 < f_.groups(); g0 += groups_at_once_) {
      const std::size_t g1 = std::min(f_.groups(), g0 + groups_at_once_);
      load(rows, g0, g1);
      for (std::size_t g = g0; g < g1; ++g) find(g, g - g0, block(g, g0, weights));
      set_scale_base(g0, g1);
      set_zero_base(g0, g1);
      for (std::size_t g = g0; g < g1; ++g) choose(g, g - g0, block(g, g0, weights), rows);
    }
  }

private:
  [[nodiscard]] std::size_t lane_row(std::size_t lane) const { return row_begin_ + std::min(lane, count_ - 1); }
  [[nodiscard]] lane_block block(std::size_t g, std::size_t g0, std::span<const float> weights) const {
    return {values_.data() + (g - g0) * f_.group_size * fit_lanes, weights.data() + g * f_.group_size,
            f_.group_cols(g)};
  }

  /// Puts the rows' weights of some groups side by side, each row times the power of two that brings it near 1.
  void load(matrix_view<const float> rows, std::size_t g0, std::size_t g1) {
    const std::size_t begin = g0 * f_.group_size;
    const std::size_t end = (g1 - 1) * f_.group_size + f_.group_cols(g1 - 1);
    std::array<const float*, fit_lanes> from;
    for (std::size_t lane = 0; lane < fit_lanes; ++lane)
      from[lane] = rows.row(std::min(lane, count_ - 1)).data() + begin;
    float_lanes low, high;
    run_wide<transpose_loop>(from, end - begin, values_.data(), low, high);
    std::array<float_lanes, 2> factors;
    for (std::size_t lane = 0; lane < fit_lanes; ++lane) {
      const float most = std::max(-low[lane], high[lane]);
      exponent_[lane] = most == 0 ? 0 : exponent_of(most);
      factors[0][lane] = power_of_two(-exponent_[lane] / 2);
      factors[1][lane] = power_of_two(-(exponent_[lane] - exponent_[lane] / 2));
      factor_[lane] = {factors[0][lane], factors[1][lane]};
    }
    run_wide<scale_lanes_loop>(values_.data(), end - begin, factors);
  }

  void find(std::size_t g, std::size_t at, const lane_block& b) {
    fits_[at] =
        fit_groups(grid_, b, search_ ? options_ : fit_options{.candidates = 0, .shifts = 0, .iterations = 0}, bounds_);
    lane_fit& fit = fits_[at];
    for (std::size_t lane = 0; lane < fit_lanes; ++lane) {
      if (!search_) keep(g, lane, fit);
      if (fit.low[lane] == 0 && fit.high[lane] == 0) fit.scale[lane] = 0;
    }
  }

  /// The scale and zero point that are there, or, with fewer zero points than the method had, coarser ones.
  void keep(std::size_t g, std::size_t lane, lane_fit& fit) const {
    const std::size_t i = lane_row(lane);
    const float most = std::max(-fit.low[lane], fit.high[lane]);
    const float least = f_.has_zero ? most / bounds_.max_zero : 0.0f;
    fit.scale[lane] = times_power_of_two(q_.scale[i * f_.groups() + g], -exponent_[lane]);
    fit.zero[lane] = q_.zero_at(i, g);
    if (fit.scale[lane] >= least) return;
    fit.scale[lane] = least;
    fit.zero[lane] = (grid_.lowest() + grid_.highest() - (fit.low[lane] + fit.high[lane]) / least) / 2;
  }

  void set_scale_base(std::size_t g0, std::size_t g1) {
    scale_base_.fill(0);
    if (f_.scale_bits == 0) return;
    for (std::size_t lane = 0; lane < fit_lanes; ++lane) {
      double most = 0;
      for (std::size_t g = g0; g < g1; ++g) most = std::max(most, double{fits_[g - g0].scale[lane]});
      const float least = f_.aux == aux_dtype::f16 ? 0x1p-14f : std::numeric_limits<float>::min();
      float base = std::ldexp(round_precision_up(f_.aux, most / max_code(f_.scale_bits)), exponent_[lane]);
      if (most != 0) base = std::max(base, least);
      scale_base_[lane] = std::ldexp(base, -exponent_[lane]);
      if (lane < count_) q_.scale_base[lane_row(lane) * f_.super_groups() + f_.super_group_of(g0)] = base;
    }
  }

  /// A scale as a float holds it when the row's power of two is taken back.
  [[nodiscard]] float representable(float scale, std::size_t lane) const {
    if (exponent_[lane] > -100) return scale;
    return std::ldexp(std::ldexp(scale, exponent_[lane]), -exponent_[lane]);
  }

  /// The scale of a lane as it can be stored, rounded down or up.
  [[nodiscard]] float scale_candidate(std::size_t at, std::size_t lane, bool up) const {
    const double s = fits_[at].scale[lane];
    if (s == 0) return 0;
    if (f_.scale_bits == 0) return representable(round_precision(f_.aux, fits_[at].scale[lane]), lane);
    const double place = s / scale_base_[lane];
    const double u = std::clamp(up ? std::ceil(place) : std::floor(place), 1.0, double(max_code(f_.scale_bits)));
    return scale_base_[lane] * static_cast<float>(u);
  }

  /// The zero point that suits a lane's levels best at another scale: mean level - mean x / s.
  [[nodiscard]] double best_zero(std::size_t at, std::size_t lane, float scale) const {
    const lane_fit& fit = fits_[at];
    if (scale == 0 || fit.scale[lane] == 0) return f_.symmetric_zero();
    double zero = fit.zero[lane];
    if (search_) zero += double{fit.mean[lane]} / double{fit.scale[lane]} - double{fit.mean[lane]} / double{scale};
    return std::clamp(zero, double{-bounds_.max_zero}, double{bounds_.max_zero});
  }

  void set_zero_base(std::size_t g0, std::size_t g1) {
    zero_base_.fill(0);
    if (!f_.has_zero || f_.zero_bits == 0) return;
    const double half = std::ldexp(1.0, f_.zero_bits - 1);
    for (std::size_t lane = 0; lane < fit_lanes; ++lane) {
      double most = 0;
      for (std::size_t at = 0; at < g1 - g0; ++at) {
        const double apart = best_zero(at, lane, scale_candidate(at, lane, true)) - f_.symmetric_zero();
        most = std::max(most, apart > 0 ? apart / (half - 1) : -apart / half);
      }
      zero_base_[lane] = round_precision_up(f_.aux, most < 0x1p-10 ? 0 : most);
      if (lane < count_) q_.zero_base[lane_row(lane) * f_.super_groups() + f_.super_group_of(g0)] = zero_base_[lane];
    }
  }

  [[nodiscard]] float zero_candidate(std::size_t at, std::size_t lane, float scale, bool up) const {
    if (!f_.has_zero) return f_.symmetric_zero();
    const double zero = best_zero(at, lane, scale);
    if (f_.zero_bits == 0) return as_stored(static_cast<float>(zero), storage(f_.aux));
    if (zero_base_[lane] == 0) return f_.symmetric_zero();
    const double half = std::ldexp(1.0, f_.zero_bits - 1);
    const double place = (zero - f_.symmetric_zero()) / zero_base_[lane];
    const double u = std::clamp(up ? std::ceil(place) : std::floor(place), -half, half - 1);
    return f_.symmetric_zero() + zero_base_[lane] * static_cast<float>(u);
  }

  /// Chooses among the candidates and writes scale, zero point and codes.
  void choose(std::size_t g, std::size_t at, const lane_block& b, matrix_view<const float> rows) {
    float_lanes scale, zero, best_scale, best_zero_point, error{}, best;
    best.fill(std::numeric_limits<float>::infinity());
    const int scale_choices = f_.scale_bits != 0 ? 2 : 1;
    const int zero_choices = f_.has_zero && f_.zero_bits != 0 ? 2 : 1;
    for (int choice = 0; choice < scale_choices * zero_choices; ++choice) {
      for (std::size_t lane = 0; lane < fit_lanes; ++lane) {
        scale[lane] = scale_candidate(at, lane, choice % scale_choices == 0);
        zero[lane] = zero_candidate(at, lane, scale[lane], choice / scale_choices == 0);
      }
      if (scale_choices * zero_choices > 1) group_errors(grid_, b, scale, zero, error);
      for (std::size_t lane = 0; lane < fit_lanes; ++lane)
        if (choice == 0 || error[lane] < best[lane]) {
          best[lane] = error[lane];
          best_scale[lane] = scale[lane];
          best_zero_point[lane] = zero[lane];
        }
    }
    write(g, best_scale, best_zero_point, rows);
  }

  void write(std::size_t g, const float_lanes& scale, const float_lanes& zero, matrix_view<const float> rows) {
    std::array<grid_place, fit_lanes> places;
    for (std::size_t lane = 0; lane < count_; ++lane) {
      const std::size_t at = lane_row(lane) * f_.groups() + g;
      q_.scale[at] = times_power_of_two(scale[lane], exponent_[lane]);
      if (f_.has_zero) q_.zero[at] = zero[lane];
      places[lane] = {factor_[lane], scale[lane] == 0 ? 0 : 1 / scale[lane], zero[lane]};
    }
    const std::size_t begin = g * f_.group_size;
    run_wide<code_loop<Grid>>(grid_, rows.block(0, begin, count_, f_.group_cols(g)), places,
                              q_.codes.data() + row_begin_ * f_.cols + begin, f_.cols);
  }

  quantized_matrix& q_;
  const matrix_format& f_;
  const Grid& grid_;
  fit_options options_;
  bool search_;
  fit_bounds bounds_;
  std::size_t groups_at_once_ = 1;
  std::size_t row_begin_ = 0;
  std::size_t count_ = 0;
  std::vector<lane_fit> fits_;
  aligned_buffer<float> values_;
  std::array<int, fit_lanes> exponent_{};
  std::array<std::array<float, 2>, fit_lanes> factor_{}; ///< two halves of 2^-exponent
  float_lanes scale_base_{}, zero_base_{};
};

} // namespace sinq::detail

SINQ_SEPARATE_ROUNDING_END
