#pragma once

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

} // namespace sinq
