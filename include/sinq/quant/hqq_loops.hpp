#pragma once

#include "../math/stats.hpp"
#include "grids.hpp"
#include "rtn.hpp"

#include <cmath>
#include <span>

SINQ_SEPARATE_ROUNDING_BEGIN

namespace sinq::detail {

/// One group while HQQ runs: 1 / s and z.
struct hqq_group {
  float inverse;
  float zero;
};

/// w / s + z, rounded to f32 at the end, of one or many: the product is exact in f64, so that fused multiply-adds
/// change nothing.
template <class Doubles, class Floats>
SINQ_INLINE void hqq_positions(const Floats& w, const hqq_group& g, Doubles& product, Floats& position) {
  product = __builtin_convertvector(w, Doubles) * static_cast<double>(g.inverse);
  position = __builtin_convertvector(product + static_cast<double>(g.zero), Floats);
}

[[nodiscard]] inline float hqq_position(float w, hqq_group g) {
  return static_cast<float>(static_cast<double>(w) * static_cast<double>(g.inverse) + static_cast<double>(g.zero));
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

/// What one pass over a group finds.
struct hqq_sums {
  double error = 0;  ///< sum of |w - w'|
  double zero = 0;   ///< sum of the new zero points of single weights
  float largest = 0; ///< max |w - w'|
};

/// The pass where no residual is shrunk to anything but 0.
struct hqq_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(std::span<const float> w, const hqq_group& g, float top, hqq_sums& found) {
    constexpr std::size_t width = W < 2 ? 1 : W / 2, pieces = reduction_lanes / width;
    const uniform_grid grid{top};
    vec<double, width> error[pieces]{}, zero[pieces]{};
    vec<float, width> largest[1]{};
    std::size_t k = 0;
    for (; k + reduction_lanes <= w.size(); k += reduction_lanes)
      for (std::size_t p = 0; p < pieces; ++p) add(w.data() + k + p * width, g, grid, error[p], zero[p], largest[0]);
    if (k < w.size()) add_rest(w.subspan(k), g, grid, error, zero, largest[0]);
    for (std::size_t half = pieces / 2; half > 0; half /= 2)
      for (std::size_t p = 0; p < half; ++p) {
        error[p] += error[p + half];
        zero[p] += zero[p + half];
      }
    sum_of_lanes<width>(error[0]);
    sum_of_lanes<width>(zero[0]);
    most_of_lanes<width>(largest[0]);
    found = {error[0][0], zero[0][0], largest[0][0]};
  }

private:
  template <class Doubles, class Floats>
  SINQ_INLINE static void add(const float* from, const hqq_group& g, const uniform_grid& grid, Doubles& error,
                              Doubles& zero, Floats& largest) {
    Floats w, position, code;
    Doubles product;
    load(from, w);
    hqq_positions(w, g, product, position);
    grid.round(position, code);
    const Floats residual = w - (code - g.zero) / g.inverse;
    const Floats size = residual < 0.0f ? -residual : residual;
    largest = largest < size ? size : largest;
    error += __builtin_convertvector(size, Doubles);
    zero += __builtin_convertvector(code, Doubles) - product;
  }
  /// Fewer than 16 weights, each in a lane of its own.
  template <class Doubles, std::size_t Pieces, class Floats>
  SINQ_INLINE static void add_rest(std::span<const float> w, const hqq_group& g, const uniform_grid& grid,
                                   Doubles (&error)[Pieces], Doubles (&zero)[Pieces], Floats& largest) {
    constexpr std::size_t width = reduction_lanes / Pieces;
    lane_sums errors, zeros; // copies, so that those of whole vectors stay in registers
    for (std::size_t p = 0; p < Pieces; ++p) store(error[p], &errors[p * width]), store(zero[p], &zeros[p * width]);
    for (std::size_t lane = 0; lane < w.size(); ++lane) {
      vec<double, 1> error_of{errors[lane]}, zero_of{zeros[lane]};
      vec<float, 1> largest_of{largest[0]};
      add(w.data() + lane, g, grid, error_of, zero_of, largest_of);
      errors[lane] = error_of[0];
      zeros[lane] = zero_of[0];
      largest[0] = largest_of[0];
    }
    for (std::size_t p = 0; p < Pieces; ++p) load(&errors[p * width], error[p]), load(&zeros[p * width], zero[p]);
  }
};

/// The pass where some residuals are shrunk.
[[nodiscard]] inline hqq_sums hqq_shrinking_pass(std::span<const float> w, hqq_group g, float top,
                                                 const hqq_shrink& shrink) {
  lane_sums error{}, zero{};
  const auto add = [&](float weight, std::size_t lane) {
    const float code = uniform_grid{top}.nearest(hqq_position(weight, g));
    const float residual = weight - (code - g.zero) / g.inverse;
    error[lane] += static_cast<double>(std::fabs(residual));
    const float target = weight - shrink(residual);
    zero[lane] += static_cast<double>(code) - static_cast<double>(target) * static_cast<double>(g.inverse);
  };
  std::size_t k = 0;
  for (; k + reduction_lanes <= w.size(); k += reduction_lanes)
    for (std::size_t lane = 0; lane < reduction_lanes; ++lane) add(w[k + lane], lane);
  for (std::size_t lane = 0; k + lane < w.size(); ++lane) add(w[k + lane], lane);
  return {add_lanes(error), add_lanes(zero), 0};
}

/// One iteration of a group: moves its zero point and returns the sum of |w - w'| from before.
[[nodiscard]] inline double hqq_step(std::span<const float> w, hqq_group& g, float top, const hqq_shrink& shrink) {
  hqq_sums sums;
  run_wide<hqq_loop>(w, g, top, sums);
  if (sums.largest >= shrink.zero_below) sums = hqq_shrinking_pass(w, g, top, shrink);
  g.zero = static_cast<float>(sums.zero / static_cast<double>(w.size()));
  return sums.error;
}

/// Where the iteration starts: the scale between smallest and largest weight, and the zero point that fits it exactly.
[[nodiscard]] inline hqq_group hqq_start(std::span<const float> w, float top, aux_dtype aux) {
  const auto [low, high] = low_and_high(w);
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
