#pragma once

#include "lanes.hpp"

#include <algorithm>
#include <limits>

SINQ_SEPARATE_ROUNDING_BEGIN

namespace sinq {

/// How scale and zero point of a group are searched.
struct fit_options {
  int candidates = 12;      ///< ranges that are tried, >= 1: the whole one, then narrower ones
  int patience = 2;         ///< .. until so many in a row were no better than the best
  float narrowing = 0.035f; ///< how much of the whole range each gives up
  int shifts = 2;           ///< then either end of the best is moved in and out by 1 .. shifts such steps
  int iterations = 4;       ///< steps of alternating least squares from the best of them
};

namespace detail {

/// Scale s and zero point z of 16 groups, x ~ s (level - z); mean under the weights m, least and largest x.
struct lane_fit {
  float_lanes scale{}, zero{}, mean{}, low{}, high{};
};

/// What a search may find.
struct fit_bounds {
  float fixed_zero; ///< where the zero point is fixed; NaN where it is free
  float max_zero;   ///< bound of |z|: a group far from 0 gets a scale of at least max|x| / max_zero
};

/// The search for scales and zero points of W lanes: see fit_groups.
template <class Grid, std::size_t W>
class group_search {
  using wide = vec<float, W>;

public:
  SINQ_INLINE group_search(const Grid& grid, const lane_block& block, std::size_t lane, const fit_bounds& bounds)
      : grid_{grid}, x_{block.values + lane}, m_{block.weights}, size_{block.size}, zero_{bounds.fixed_zero},
        is_free_{bounds.fixed_zero != bounds.fixed_zero}, middle_level_{(grid.lowest() + grid.highest()) / 2} {
    measure();
    const wide below = -low_;
    const wide most = below > high_ ? below : high_;
    at_least(most / bounds.max_zero, std::numeric_limits<float>::min(), least_);
  }

  SINQ_INLINE void run(const fit_options& options) {
    const float span = grid_.highest() - grid_.lowest();
    wide range = range_, middle = low_ + range_ / 2;
    if (!is_free_) { // levels reach as far as they can on the side that needs more
      const float up = grid_.highest() - zero_, down = zero_ - grid_.lowest();
      const wide above = high_ / up, below = -low_ / down;
      const wide scale = above > below ? above : below;
      middle = scale * ((up - down) / 2);
      range = scale * span;
    }
    best_error_ = wide{} + std::numeric_limits<float>::infinity();
    wide failures{};
    for (int k = 0; k < options.candidates; ++k) {
      const wide before = best_error_;
      wide scale;
      at_least(range * ((1 - options.narrowing * static_cast<float>(k)) / span), least_, scale);
      try_step(scale, middle - scale * middle_level_, failures < static_cast<float>(options.patience));
      failures = best_error_ < before ? wide{} : failures + 1.0f;
      if (all_at_least(failures, static_cast<float>(options.patience))) break;
    }
    const auto all = failures >= 0.0f;
    for (int k = 1; is_free_ && k <= options.shifts; ++k)
      for (const float sign : {1.0f, -1.0f})
        for (const bool upper : {true, false}) {
          const wide moved = range * (sign * static_cast<float>(k) * options.narrowing);
          const wide end = best_scale_ * grid_.lowest() + best_offset_ + (upper ? wide{} : moved);
          wide scale;
          at_least(best_scale_ - moved / span, least_, scale);
          try_step(scale, end - scale * grid_.lowest(), all);
        }
    for (int k = 0; k < options.iterations; ++k) {
      const wide before = best_error_;
      try_step(wide{best_scale_}, wide{best_offset_}, all);
      if (all_at_least(best_error_ < before ? wide{} : wide{} + 1.0f, 1.0f)) break; // another would find the same
    }
  }

  SINQ_INLINE void write(std::size_t lane, lane_fit& to) const {
    store(best_scale_, to.scale.data() + lane);
    store(is_free_ ? -(best_offset_ / best_scale_) : wide{} + zero_, to.zero.data() + lane);
    store(mean_, to.mean.data() + lane);
    store(low_, to.low.data() + lane);
    store(high_, to.high.data() + lane);
  }

private:
  static constexpr std::size_t columns_at_once = 64; // sums of so many are added to those of the rest

  template <class Bound>
  SINQ_INLINE static void at_least(const wide& value, const Bound& bound, wide& to) {
    const wide least = wide{} + bound;
    to = value >= least ? value : least;
  }

  SINQ_INLINE static bool all_at_least(const wide& values, float bound) {
    bool all = true;
    for (std::size_t lane = 0; lane < W; ++lane) all &= values[lane] >= bound;
    return all;
  }

  SINQ_INLINE void measure() {
    load(x_, low_);
    high_ = low_;
    wide sum{}, x;
    for (std::size_t j = 0; j < size_;) {
      wide some{};
      float some_weight = 0;
      for (const std::size_t end = std::min(size_, j + columns_at_once); j < end; ++j) {
        load(x_ + j * fit_lanes, x);
        low_ = x < low_ ? x : low_;
        high_ = x > high_ ? x : high_;
        some += x * m_[j];
        some_weight += m_[j];
      }
      sum += some;
      per_weight_ += some_weight;
    }
    per_weight_ = 1 / per_weight_;
    mean_ = sum * per_weight_;
    range_ = high_ - low_;
    per_range_ = range_ > std::numeric_limits<float>::min() ? 1.0f / range_ : wide{};
    for (std::size_t j = 0; j < size_;) {
      wide some{};
      for (const std::size_t end = std::min(size_, j + columns_at_once); j < end; ++j) {
        load(x_ + j * fit_lanes, x);
        const wide apart = (x - mean_) * per_range_;
        some += (apart * apart) * m_[j];
      }
      variance_ += some;
    }
    variance_ *= per_weight_;
  }

  /// Rounds x to levels by a scale and an offset, x ~ s level + offset, then finds the scale and zero point that suit
  /// these levels best, and keeps them if they are better than the best.
  ///   p = (x - offset) / s - middle,  d = level - middle,  r = p - d:   minimise E (r - a d - b)^2;   s' = s (1 + a)
  /// E is the mean under the weights m. Only E r, E r^2 and E r p are summed up: the moments of p follow from those of
  /// x, and those of d from both.
  /// @param wanted  the lanes that may be bettered
  template <class Mask>
  SINQ_INLINE void try_step(const wide& scale, const wide& free_offset, const Mask& wanted) {
    const wide inverse = 1.0f / scale;
    const wide offset = is_free_ ? free_offset : -(scale * zero_);
    wide r1{}, r2{}, rp{};
    for (std::size_t j = 0; j < size_;) {
      wide some_r1{}, some_r2{}, some_rp{}, x, level;
      for (const std::size_t end = std::min(size_, j + columns_at_once); j < end; ++j) {
        load(x_ + j * fit_lanes, x);
        const wide position = (x - offset) * inverse;
        grid_.round(position, level);
        const wide r = position - level;
        const wide mr = r * m_[j];
        some_r1 += mr;
        some_r2 += mr * r;
        some_rp += mr * position;
      }
      r1 += some_r1;
      r2 += some_r2;
      rp += some_rp;
    }
    r1 *= per_weight_;
    r2 *= per_weight_;
    rp = rp * per_weight_ - r1 * middle_level_;
    const wide p1 = (mean_ - offset) * inverse - middle_level_;
    wide d1 = p1 - r1;
    const wide steps = range_ * inverse;
    wide d2 = (variance_ * (steps * steps) + p1 * p1) - (rp + rp - r2);
    wide rd = rp - r2;
    if (!is_free_) { // distances from the zero point instead of the middle
      const float apart = middle_level_ - zero_;
      rd += r1 * apart;
      d2 += d1 * (2 * apart) + apart * apart;
    }
    const wide spread = is_free_ ? d2 - d1 * d1 : d2;
    const wide common = is_free_ ? rd - r1 * d1 : rd;
    const wide slope = spread > d2 * 1e-6f ? common / spread : wide{};
    wide new_scale;
    at_least(scale * (slope + 1.0f), least_, new_scale);
    const wide ratio = new_scale * inverse;
    const wide a = ratio - 1.0f;
    const wide b = is_free_ ? r1 - a * d1 : wide{};
    const wide new_offset = is_free_ ? offset + scale * (b - a * middle_level_) : -(new_scale * zero_);
    const wide rest = r2 + a * (a * d2 - 2.0f * rd) + b * (b - 2.0f * r1 + 2.0f * a * d1);
    const wide size = scale * per_range_;
    const wide error = (size * size) * rest;
    const auto better = (error < best_error_) & wanted;
    best_scale_ = better ? new_scale : best_scale_;
    best_offset_ = better ? new_offset : best_offset_;
    best_error_ = better ? error : best_error_;
  }

  const Grid& grid_;
  const float* x_;
  const float* m_;
  std::size_t size_;
  float zero_;
  bool is_free_;
  float middle_level_;
  float per_weight_ = 0; // 1 / sum m
  wide low_{}, high_{}, mean_{}, least_{};
  wide range_{}, per_range_{}, variance_{}; // high - low, its reciprocal, the variance over its square
  wide best_scale_{}, best_offset_{}, best_error_{};
};

template <class Grid>
struct fit_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const Grid& grid, const lane_block& block, const fit_options& options,
                              const fit_bounds& bounds, lane_fit& to) {
    for (std::size_t lane = 0; lane < fit_lanes; lane += W) {
      group_search<Grid, W> search{grid, block, lane, bounds};
      search.run(options);
      search.write(lane, to);
    }
  }
};

/// Scales and zero points of 16 groups: the best of several ranges, each after one step of least squares, then more
/// steps.   minimise sum m (x - s (level - z))^2 over s, z and levels
/// @param block  |x| below 2^64, so that nothing overflows
/// Numerics: f32; errors from the differences between positions and levels, so that nothing cancels.
template <class Grid>
[[nodiscard]] lane_fit fit_groups(const Grid& grid, const lane_block& block, const fit_options& options,
                                  const fit_bounds& bounds) {
  lane_fit found;
  run_wide<fit_loop<Grid>>(grid, block, options, bounds, found);
  return found;
}

} // namespace detail

} // namespace sinq

SINQ_SEPARATE_ROUNDING_END
