#pragma once

#include "../core/error.hpp"
#include "../core/finite.hpp"

#include <cstdint>
#include <optional>

namespace sinq {

/// How the scales of rows and columns are found.
enum class sinkhorn_rule : std::uint8_t {
  alternating, ///< rows, then columns of what is left, as Sinkhorn and Knopp do: two passes are most often enough
  reference,   ///< rows and columns at once, from the same iterate: Algorithm 1 of the paper, with its constants
};

/// Constants of the Sinkhorn iteration; the defaults are those of the reference code. The alternating rule has none of
/// them but `iterations`.
struct sinkhorn_options {
  std::optional<sinkhorn_rule> rule{}; ///< without it, alternating, or what suits the method: see quantize_options
  int iterations = 16; ///< at most, >= 0; it stops at the first one that raises the imbalance (alternating: once even)
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

namespace detail {

/// How narrow beside the widest the spread of a column may seem to the alternating rule: 1 to 2^15 are normal numbers
/// of f16.
inline constexpr float narrowest_column = 0x1p-14f;
/// Columns whose spreads were at most this much apart before the alternating rule moved them need no other pass: what
/// is left of it after rows have moved is a tenth of its logarithm or so.
inline constexpr float even_enough = 1.5f;

} // namespace detail

/// Whether the iteration can run with these options.
[[nodiscard]] inline result<void> check(const sinkhorn_options& o) {
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

} // namespace sinq
