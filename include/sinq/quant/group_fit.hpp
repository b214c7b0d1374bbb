#pragma once

#include "lanes.hpp"
#include "refine_options.hpp"

#include <algorithm>
#include <limits>

SINQ_SEPARATE_ROUNDING_BEGIN

namespace sinq::detail {

/// Scale s and zero point z of 32 groups, x ~ s (level - z); mean under the weights m, least and largest x.
struct lane_fit {
  float_lanes scale{}, zero{}, mean{}, low{}, high{};
};

/// Sums of so many columns are added to those of the rest.
inline constexpr std::size_t fit_columns = 64;

/// What a search may find.
struct fit_bounds {
  float fixed_zero; ///< where the zero point is fixed; NaN where it is free
  float max_zero;   ///< bound of |z|: a group far from 0 gets a scale of at least max|x| / max_zero
};

/// Scales and zero points of W lanes that are tried, and what comes of them.
///   p = (x - offset) / s - middle,  d = level - middle,  r = p - d
template <std::size_t W>
struct fit_step {
  vec<float, W> scale, inverse, offset;
  vec<float, W> r1{}, r2{}, rp{}; ///< sums of m r, m r^2 and m r (p + middle)

  /// Adds one column.
  template <class Grid>
  SINQ_INLINE void add(const Grid& grid, const float* x, float m) {
    vec<float, W> values, level;
    load(x, values);
    const vec<float, W> position = (values - offset) * inverse;
    grid.round(position, level);
    const vec<float, W> r = position - level;
    const vec<float, W> mr = r * m;
    r1 += mr;
    add_product(mr, r, r2);
    add_product(mr, position, rp);
  }
  SINQ_INLINE void add(const fit_step& more) {
    r1 += more.r1;
    r2 += more.r2;
    rp += more.rp;
  }
};

/// What is known of W lanes while their scales and zero points are searched: see fit_groups.
template <class Grid, std::size_t W>
class lane_search {
  using wide = vec<float, W>;

public:
  using step = fit_step<W>;

  SINQ_INLINE lane_search(const Grid& grid, const lane_block& block, std::size_t lane, const fit_options& options,
                          const fit_bounds& bounds)
      : x_{block.values + lane}, options_{options}, zero_{bounds.fixed_zero}, is_free_{zero_ != zero_},
        lowest_{grid.lowest()}, middle_level_{(lowest_ + grid.highest()) / 2}, span_{grid.highest() - lowest_} {
    measure(block);
    const wide below = -low_;
    const wide most = below > high_ ? below : high_;
    at_least(most / bounds.max_zero, std::numeric_limits<float>::min(), least_);
    reach_ = range_;
    centre_ = low_ + range_ / 2;
    if (!is_free_) { // levels reach as far as they can on the side that needs more
      const float up = grid.highest() - zero_, down = zero_ - grid.lowest();
      const wide above = high_ / up, under = -low_ / down;
      const wide scale = above > under ? above : under;
      centre_ = scale * ((up - down) / 2);
      reach_ = scale * span_;
    }
    best_error_ = wide{} + std::numeric_limits<float>::infinity();
  }

  [[nodiscard]] SINQ_INLINE const float* values() const { return x_; }
  [[nodiscard]] SINQ_INLINE bool is_free() const { return is_free_; }

  /// The whole range without k parts of it.
  SINQ_INLINE void narrow(int k, step& to) const {
    wide scale;
    at_least(reach_ * ((1 - options_.narrowing * static_cast<float>(k)) / span_), least_, scale);
    start(scale, centre_ - scale * middle_level_, to);
  }
  /// The best with one end moved by a part of the range.
  SINQ_INLINE void shift(float parts, bool upper, step& to) const {
    const wide moved = reach_ * (parts * options_.narrowing);
    const wide end = best_scale_ * lowest_ + best_offset_ + (upper ? wide{} : moved);
    wide scale;
    at_least(best_scale_ - moved / span_, least_, scale);
    start(scale, end - scale * lowest_, to);
  }
  /// The best again.
  SINQ_INLINE void repeat(step& to) const { start(best_scale_, best_offset_, to); }

  /// Finds the scale and zero point that suit the levels of a step best, and keeps them if they are better than the
  /// best:   minimise E (r - a d - b)^2;   s' = s (1 + a)
  /// E is the mean under the weights m. Only E r, E r^2 and E r p are summed up: the moments of p follow from those of
  /// x, and those of d from both.
  /// @param patient  only lanes that have not failed too often may be bettered
  SINQ_INLINE void finish(const step& s, bool patient) {
    const wide r1 = s.r1 * per_weight_, r2 = s.r2 * per_weight_;
    const wide rp = s.rp * per_weight_ - r1 * middle_level_;
    const wide p1 = (mean_ - s.offset) * s.inverse - middle_level_;
    const wide d1 = p1 - r1;
    const wide steps = range_ * s.inverse;
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
    wide scale;
    at_least(s.scale * (slope + 1.0f), least_, scale);
    const wide a = scale * s.inverse - 1.0f;
    const wide b = is_free_ ? r1 - a * d1 : wide{};
    const wide offset = is_free_ ? s.offset + s.scale * (b - a * middle_level_) : -(scale * zero_);
    const wide rest = r2 + a * (a * d2 - 2.0f * rd) + b * (b - 2.0f * r1 + 2.0f * a * d1);
    const wide size = s.scale * per_range_;
    const wide error = (size * size) * rest;
    const wide before = best_error_;
    wide limit = before;
    const wide never = wide{} - std::numeric_limits<float>::infinity();
    if (patient) limit = failures_ < static_cast<float>(options_.patience) ? before : never;
    best_scale_ = error < limit ? scale : best_scale_;
    best_offset_ = error < limit ? offset : best_offset_;
    best_error_ = error < limit ? error : best_error_;
    failures_ = best_error_ < before ? wide{} : failures_ + 1.0f;
  }

  /// The least number of steps in a row, among the lanes, that were no better than the best.
  [[nodiscard]] SINQ_INLINE float failures() const {
    wide least = failures_;
    least_of_lanes<W>(least);
    return least[0];
  }

  SINQ_INLINE void write(std::size_t lane, lane_fit& to) const {
    store(best_scale_, to.scale.data() + lane);
    store(is_free_ ? -(best_offset_ / best_scale_) : wide{} + zero_, to.zero.data() + lane);
    store(mean_, to.mean.data() + lane);
    store(low_, to.low.data() + lane);
    store(high_, to.high.data() + lane);
  }

private:
  template <class Bound>
  SINQ_INLINE static void at_least(const wide& value, const Bound& bound, wide& to) {
    const wide least = wide{} + bound;
    to = value >= least ? value : least;
  }

  SINQ_INLINE void start(const wide& scale, const wide& free_offset, step& to) const {
    to.scale = scale;
    to.inverse = 1.0f / scale;
    to.offset = is_free_ ? free_offset : -(scale * zero_);
    to.r1 = to.r2 = to.rp = wide{};
  }

  SINQ_INLINE void measure(const lane_block& block) {
    load(x_, low_);
    high_ = low_;
    wide sum{}, x;
    for (std::size_t j = 0; j < block.size;) {
      wide some{};
      float some_weight = 0;
      for (const std::size_t end = std::min(block.size, j + fit_columns); j < end; ++j) {
        load(x_ + j * fit_lanes, x);
        low_ = x < low_ ? x : low_;
        high_ = x > high_ ? x : high_;
        some += x * block.weights[j];
        some_weight += block.weights[j];
      }
      sum += some;
      per_weight_ += some_weight;
    }
    per_weight_ = 1 / per_weight_;
    mean_ = sum * per_weight_;
    range_ = high_ - low_;
    per_range_ = range_ > std::numeric_limits<float>::min() ? 1.0f / range_ : wide{};
    for (std::size_t j = 0; j < block.size;) {
      wide some{};
      for (const std::size_t end = std::min(block.size, j + fit_columns); j < end; ++j) {
        load(x_ + j * fit_lanes, x);
        const wide apart = (x - mean_) * per_range_;
        some += (apart * apart) * block.weights[j];
      }
      variance_ += some;
    }
    variance_ *= per_weight_;
  }

  const float* x_;
  const fit_options& options_;
  float zero_;
  bool is_free_;
  float lowest_, middle_level_, span_;
  float per_weight_ = 0; // 1 / sum m
  wide low_{}, high_{}, mean_{}, least_{};
  wide range_{}, per_range_{}, variance_{}; // high - low, its reciprocal, the variance over its square
  wide reach_{}, centre_{};                 // of the range that is narrowed
  wide best_scale_{}, best_offset_{}, best_error_{}, failures_{};
};

/// Runs the searches of two vectors of W lanes in step, so that one computes while the other waits.
template <class Grid>
struct fit_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const Grid& grid, const lane_block& block, const fit_options& options,
                              const fit_bounds& bounds, lane_fit& to) {
    static_assert(fit_lanes % (2 * W) == 0);
    for (std::size_t lane = 0; lane < fit_lanes; lane += 2 * W) {
      lane_search<Grid, W> a{grid, block, lane, options, bounds}, b{grid, block, lane + W, options, bounds};
      search<W>(grid, block, options, a, b);
      a.write(lane, to);
      b.write(lane + W, to);
    }
  }

private:
  template <std::size_t W>
  SINQ_INLINE static void search(const Grid& grid, const lane_block& block, const fit_options& options,
                                 lane_search<Grid, W>& a, lane_search<Grid, W>& b) {
    fit_step<W> of_a, of_b;
    const auto finish = [&](bool patient) __attribute__((always_inline)) {
      sum_up<W>(grid, block, a.values(), of_a, of_b);
      a.finish(of_a, patient);
      b.finish(of_b, patient);
    };
    for (int k = 0; k < options.candidates; ++k) {
      a.narrow(k, of_a), b.narrow(k, of_b);
      finish(true);
      if (std::min(a.failures(), b.failures()) >= static_cast<float>(options.patience)) break;
    }
    for (int k = 1; a.is_free() && k <= options.shifts; ++k)
      for (int end = 0; end < 4; ++end) {
        const float parts = static_cast<float>(end < 2 ? k : -k);
        a.shift(parts, end % 2 == 0, of_a), b.shift(parts, end % 2 == 0, of_b);
        finish(false);
      }
    for (int k = 0; k < options.iterations; ++k) {
      a.repeat(of_a), b.repeat(of_b);
      finish(false);
      if (std::min(a.failures(), b.failures()) > 0) break; // another would find the same
    }
  }

  /// Sums up what the levels of both steps make of each column.
  template <std::size_t W>
  SINQ_INLINE static void sum_up(const Grid& grid, const lane_block& block, const float* x, fit_step<W>& a,
                                 fit_step<W>& b) {
    for (std::size_t j = 0; j < block.size;) {
      fit_step<W> some_a{a.scale, a.inverse, a.offset}, some_b{b.scale, b.inverse, b.offset};
      for (const std::size_t end = std::min(block.size, j + fit_columns); j < end; ++j) {
        some_a.add(grid, x + j * fit_lanes, block.weights[j]);
        some_b.add(grid, x + j * fit_lanes + W, block.weights[j]);
      }
      a.add(some_a);
      b.add(some_b);
    }
  }
};

/// Scales and zero points of 32 groups: the best of several ranges, each after one step of least squares, then more
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

} // namespace sinq::detail

SINQ_SEPARATE_ROUNDING_END
