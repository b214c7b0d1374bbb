#pragma once

#include "grids.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

SINQ_SEPARATE_ROUNDING_BEGIN

namespace sinq {

/// How scale and zero point of a group are searched.
struct fit_options {
  int candidates = 12;      ///< ranges that are tried, >= 1: the whole one, then narrower ones
  float narrowing = 0.035f; ///< how much of the whole range each gives up
  int shifts = 2;           ///< then either end of the best is moved in and out by 1 .. shifts such steps
  int iterations = 4;       ///< steps of alternating least squares from the best of them
};

namespace detail {

/// Groups are fitted 16 at a time, one a lane, the lanes being rows: every sum runs down a lane from the first column
/// to the last, in whatever width the machine has, so that results do not depend on it.
inline constexpr std::size_t fit_lanes = 16;
using float_lanes = std::array<float, fit_lanes>;
using double_lanes = std::array<double, fit_lanes>;

/// 16 groups of n weights x, and the weights m of their squared errors, which the lanes share.
struct lane_block {
  const float* values;  ///< [n x 16]
  const float* weights; ///< [n], > 0
  std::size_t size;     ///< n >= 1
};

/// Sums over a group that do not depend on its scale.
struct group_sums {
  double weight = 0;     ///< sum m
  double_lanes value{};  ///< sum m x
  double_lanes square{}; ///< sum m x^2
  float_lanes low{}, high{};

  explicit group_sums(const lane_block& block) {
    for (std::size_t lane = 0; lane < fit_lanes; ++lane) low[lane] = high[lane] = block.values[lane];
    for (std::size_t j = 0; j < block.size; ++j) {
      const float* const x = block.values + j * fit_lanes;
      const double m = block.weights[j];
      weight += m;
      for (std::size_t lane = 0; lane < fit_lanes; ++lane) {
        const double mx = m * x[lane];
        low[lane] = std::min(low[lane], x[lane]);
        high[lane] = std::max(high[lane], x[lane]);
        value[lane] += mx;
        square[lane] += mx * x[lane];
      }
    }
  }
};

/// Scale s and offset c of 16 groups, x ~ s q + c, and their errors sum m (x - s q - c)^2.
struct lane_fit {
  double_lanes scale{}, offset{}, error{};
};

/// Rounds x to levels by scale and offset `from`, then finds scale and offset that suit these levels best.
/// @param zero    where the zero point is fixed: c = -s zero; NaN where it is free
/// @param least   smallest scale of each lane
template <class Grid>
void fit_step(const Grid& grid, const lane_block& block, const group_sums& sums, const lane_fit& from, float zero,
              const double_lanes& least, lane_fit& to) {
  float_lanes inverse, offset;
  for (std::size_t lane = 0; lane < fit_lanes; ++lane) {
    inverse[lane] = static_cast<float>(1 / from.scale[lane]);
    offset[lane] = static_cast<float>(from.offset[lane]);
  }
  double_lanes level{}, level_square{}, product{};
  for (std::size_t j = 0; j < block.size; ++j) {
    const float* const x = block.values + j * fit_lanes;
    const double m = block.weights[j];
    for (std::size_t lane = 0; lane < fit_lanes; ++lane) {
      const float q = grid.nearest((x[lane] - offset[lane]) * inverse[lane]);
      const double mq = m * q;
      level[lane] += mq;
      level_square[lane] += mq * q;
      product[lane] += mq * x[lane];
    }
  }
  const bool is_free = zero != zero;
  for (std::size_t lane = 0; lane < fit_lanes; ++lane) {
    const double q = level[lane], qq = level_square[lane], qx = product[lane], x = sums.value[lane];
    const double m = sums.weight;
    const double z = is_free ? 0 : zero;
    const double spread = is_free ? m * qq - q * q : qq - 2 * z * q + z * z * m;
    const double common = is_free ? m * qx - q * x : qx - z * x;
    double s = spread > 1e-12 * (is_free ? m * qq : qq + z * z * m) ? common / spread : from.scale[lane];
    s = s >= least[lane] ? s : least[lane];
    const double c = is_free ? (x - s * q) / m : -s * z;
    to.scale[lane] = s;
    to.offset[lane] = c;
    to.error[lane] = sums.square[lane] - 2 * s * qx - 2 * c * x + s * s * qq + 2 * s * c * q + c * c * m;
  }
}

inline void keep_better(const lane_fit& found, lane_fit& best) {
  for (std::size_t lane = 0; lane < fit_lanes; ++lane) {
    const bool better = found.error[lane] < best.error[lane];
    best.scale[lane] = better ? found.scale[lane] : best.scale[lane];
    best.offset[lane] = better ? found.offset[lane] : best.offset[lane];
    best.error[lane] = better ? found.error[lane] : best.error[lane];
  }
}

/// Scale and offset of 16 groups: the best of several ranges, each after one step of least squares, then more steps.
/// minimise sum m (x - s q - c)^2 over s, c and levels q
/// @param zero      the fixed zero point, or NaN
/// @param max_zero  bound of |c / s|: a group far from 0 gets a scale of at least max|x| / max_zero
/// Numerics: levels from f32 positions; sums in f64, each product and sum rounded.
template <class Grid>
[[nodiscard]] lane_fit fit_groups(const Grid& grid, const lane_block& block, const group_sums& sums,
                                  const fit_options& options, float zero, float max_zero) {
  const double span = static_cast<double>(grid.highest()) - grid.lowest();
  double_lanes least, middle, half;
  for (std::size_t lane = 0; lane < fit_lanes; ++lane) {
    const double most = std::max(std::fabs(sums.low[lane]), std::fabs(sums.high[lane]));
    least[lane] = std::max(most / max_zero, double{std::numeric_limits<float>::min()});
    middle[lane] = (static_cast<double>(sums.high[lane]) + sums.low[lane]) / 2;
    half[lane] = (static_cast<double>(sums.high[lane]) - sums.low[lane]) / 2;
    if (zero == zero) { // levels reach as far as they can on the side that needs more
      const double up = grid.highest() - static_cast<double>(zero), down = zero - static_cast<double>(grid.lowest());
      const double scale = std::max(sums.high[lane] / up, -sums.low[lane] / down);
      middle[lane] = scale * (up - down) / 2;
      half[lane] = scale * span / 2;
    }
  }
  lane_fit best, from, found;
  best.error.fill(std::numeric_limits<double>::infinity());
  for (int k = 0; k < options.candidates; ++k) {
    const double kept = 1 - static_cast<double>(options.narrowing) * k;
    for (std::size_t lane = 0; lane < fit_lanes; ++lane) {
      from.scale[lane] = std::max(2 * half[lane] * kept / span, least[lane]);
      from.offset[lane] = zero != zero ? middle[lane] - from.scale[lane] * (span / 2 + grid.lowest())
                                       : -from.scale[lane] * static_cast<double>(zero);
    }
    fit_step(grid, block, sums, from, zero, least, found);
    keep_better(found, best);
  }
  const bool is_free = zero != zero;
  for (int k = 1; is_free && k <= options.shifts; ++k)
    for (const double sign : {1.0, -1.0})
      for (const bool upper : {true, false}) {
        for (std::size_t lane = 0; lane < fit_lanes; ++lane) {
          const double moved = sign * k * static_cast<double>(options.narrowing) * 2 * half[lane];
          const double range = best.scale[lane] * span - moved;
          from.scale[lane] = std::max(range / span, least[lane]);
          from.offset[lane] = best.offset[lane] + best.scale[lane] * grid.lowest() + (upper ? 0 : moved) -
                              from.scale[lane] * grid.lowest();
        }
        fit_step(grid, block, sums, from, zero, least, found);
        keep_better(found, best);
      }
  for (int k = 0; k < options.iterations; ++k) {
    from = best;
    fit_step(grid, block, sums, from, zero, least, found);
    keep_better(found, best);
  }
  return best;
}

/// Errors sum m (x - s (q - z))^2 of 16 groups whose scales and zero points are given. A scale of 0 stands for zeros.
template <class Grid>
void group_errors(const Grid& grid, const lane_block& block, const float_lanes& scale, const float_lanes& zero,
                  double_lanes& error) {
  float_lanes inverse;
  for (std::size_t lane = 0; lane < fit_lanes; ++lane) inverse[lane] = scale[lane] == 0 ? 0 : 1 / scale[lane];
  error.fill(0);
  for (std::size_t j = 0; j < block.size; ++j) {
    const float* const x = block.values + j * fit_lanes;
    const double m = block.weights[j];
    for (std::size_t lane = 0; lane < fit_lanes; ++lane) {
      const float q = grid.nearest(x[lane] * inverse[lane] + zero[lane]);
      const double difference = x[lane] - scale[lane] * (q - zero[lane]);
      error[lane] += m * (difference * difference);
    }
  }
}

} // namespace detail

} // namespace sinq

SINQ_SEPARATE_ROUNDING_END
