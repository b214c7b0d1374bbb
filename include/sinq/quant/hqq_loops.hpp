#pragma once

#include "../math/column_tile.hpp"
#include "grids.hpp"
#include "lane_codes.hpp"
#include "rtn.hpp"

#include <array>
#include <cmath>
#include <span>

SINQ_SEPARATE_ROUNDING_BEGIN

namespace sinq::detail {

/// One group while HQQ runs: 1 / s and z.
struct hqq_group {
  float inverse;
  float zero;
};

/// w / s + z, rounded once: the same on every machine.
template <class Vector>
SINQ_INLINE void hqq_positions(const Vector& w, const Vector& inverse, const Vector& zero, Vector& position) {
  position = zero;
  add_product(w, inverse, position);
}

/// The generalised soft threshold sign(x) max(0, |x| - |x|^(p - 1) / beta), and below which |x| it is 0.
struct hqq_shrink {
  double power;
  float inverse_beta;
  float zero_below;

  hqq_shrink(double p, double beta)
      : power{p - 1}, inverse_beta{static_cast<float>(1 / beta)}, zero_below{static_cast<float>(
                                                                      0.999 * std::pow(beta, -1 / (2 - p)))} {}

  [[nodiscard]] float operator()(float x) const {
    const double size = std::fabs(static_cast<double>(x));
    if (size < static_cast<double>(zero_below)) return 0.0f;
    const float slope = static_cast<float>(std::pow(size, power));
    const double threshold = static_cast<double>(slope) * static_cast<double>(inverse_beta); // exact
    return static_cast<float>(std::copysign(std::max(0.0, size - threshold), static_cast<double>(x)));
  }
};

/// Of 16 groups, one to a lane.
using hqq_lanes = std::array<float, tile_lanes>;

/// Weights of 16 groups.
struct hqq_block {
  const float* w;     ///< of the first column
  std::size_t stride; ///< from column to column
  std::size_t cols;
  uniform_grid grid;
};

/// The least and largest weight of each group.
struct hqq_range_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const hqq_block& b, hqq_lanes& lows, hqq_lanes& highs) {
    for (std::size_t lane = 0; lane < tile_lanes; lane += W) {
      vec<float, W> low, high, x;
      load(b.w + lane, low);
      high = low;
      for (std::size_t j = 1; j < b.cols; ++j) {
        load(b.w + j * b.stride + lane, x);
        low = x < low ? x : low;
        high = x > high ? x : high;
      }
      store(low, lows.data() + lane);
      store(high, highs.data() + lane);
    }
  }
};

/// Some iterations of 16 groups: new zero points, and the sums of |w - w'| from before.
///   e = q - (w / s + z),  z += mean(e + shrink(w - w') / s)
/// Sums run over 64 columns one after another in f32, then over these.
struct hqq_loop {
  /// @param inverse  1 / s of each group
  /// @param zero     of each group, where the iteration starts
  /// @param zeros    after each iteration, `zeros_stride` floats from one to the next
  /// @param errors   before each iteration
  template <std::size_t W>
  SINQ_INLINE static void run(const hqq_block& shared, std::span<const hqq_shrink> shrinks, const float* inverse,
                              const float* zero, float* zeros, std::size_t zeros_stride, hqq_lanes* errors) {
    const hqq_block b = shared; // a copy, which no result that is written can change
    for (std::size_t lane = 0; lane < tile_lanes; lane += W) {
      group<W> g;
      load(inverse + lane, g.inverse);
      load(zero + lane, g.zero);
      g.to_weights.set(g.inverse);
      for (std::size_t k = 0; k < shrinks.size(); ++k) {
        sums<W> found;
        add_all<W, false>(b, b.w + lane, g, shrinks[k], found);
        most_of_lanes<W>(found.largest);
        if (found.largest[0] >= shrinks[k].zero_below) add_all<W, true>(b, b.w + lane, g, shrinks[k], found);
        g.zero += found.off / static_cast<float>(b.cols);
        store(g.zero, zeros + k * zeros_stride + lane);
        store(found.error, errors[k].data() + lane);
      }
    }
  }

private:
  template <std::size_t W>
  struct group {
    vec<float, W> inverse, zero;
    fast_divisor<W> to_weights; ///< divides by 1 / s
  };
  template <std::size_t W>
  struct sums {
    vec<float, W> error, off, largest; ///< of |w - w'| and of e, shrunk or not; max |w - w'|
  };

  template <std::size_t W, bool Shrinks>
  SINQ_INLINE static void add_all(const hqq_block& b, const float* w, const group<W>& g, const hqq_shrink& shrink,
                                  sums<W>& found) {
    found = sums<W>{};
    for (std::size_t j = 0; j < b.cols;) {
      sums<W> some{};
      for (const std::size_t end = std::min(b.cols, j + 64); j < end; ++j)
        add<W, Shrinks>(w + j * b.stride, b.grid, g, shrink, some);
      found.error += some.error;
      found.off += some.off;
      found.largest = some.largest > found.largest ? some.largest : found.largest;
    }
  }
  template <std::size_t W, bool Shrinks>
  SINQ_INLINE static void add(const float* from, const uniform_grid& grid, const group<W>& g, const hqq_shrink& shrink,
                              sums<W>& to) {
    vec<float, W> w, position, code;
    load(from, w);
    hqq_positions(w, g.inverse, g.zero, position);
    grid.round(position, code);
    vec<float, W> level = code - g.zero;
    g.to_weights.divide(level);
    const vec<float, W> residual = w - level;
    vec<float, W> off = code - position;
    vec<std::int32_t, W> bits;
    __builtin_memcpy(&bits, &residual, sizeof bits);
    bits &= 0x7fffffff;
    vec<float, W> size;
    __builtin_memcpy(&size, &bits, sizeof bits);
    if constexpr (Shrinks)
      for (std::size_t k = 0; k < W; ++k) off[k] += shrink(residual[k]) * g.inverse[k];
    to.error += size;
    to.off += off;
    to.largest = size > to.largest ? size : to.largest;
  }
};

/// Codes of a group.
struct hqq_code_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(std::span<const float> w, const hqq_group& g, const uniform_grid& shared,
                              std::uint8_t* codes) {
    const uniform_grid grid = shared; // a copy, which no code that is written can change
    std::size_t k = 0;
    for (; k + W <= w.size(); k += W) write<W>(w.data() + k, g, grid, codes + k);
    for (; k < w.size(); ++k) write<1>(w.data() + k, g, grid, codes + k);
  }

private:
  template <std::size_t W>
  SINQ_INLINE static void write(const float* from, const hqq_group& g, const uniform_grid& grid, std::uint8_t* codes) {
    vec<float, W> w, position;
    vec<std::int32_t, W> code;
    load(from, w);
    hqq_positions(w, vec<float, W>{} + g.inverse, vec<float, W>{} + g.zero, position);
    grid.find_codes(position, code);
    store(__builtin_convertvector(code, vec<std::uint8_t, W>), codes);
  }
};

/// Where the iteration starts: the scale between smallest and largest weight, and the zero point that fits it exactly.
[[nodiscard]] inline hqq_group hqq_start(float low, float high, float top, aux_dtype aux) {
  const float size = std::max(-low, high);
  if (size == 0) return {top / 1e-4f, 0.0f};
  const float range = high - low;
  const float inverse = is_finite(range) ? top / range : 1 / (high / top - low / top);
  const float coarsest = std::max(size / max_zero(aux), std::numeric_limits<float>::min());
  const float bounded = std::min(inverse, 1 / coarsest);
  return {bounded, -low * bounded};
}

} // namespace sinq::detail

SINQ_SEPARATE_ROUNDING_END
