#pragma once

#include "matrices.hpp"

#include <sinq/quant/quantize.hpp>

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace sinq_quality {

/// One way to quantize: a method, and what is added to it.
struct trial {
  sinq::method method = sinq::method::rtn;
  std::string variant;                     ///< empty: the method as it comes
  std::optional<sinq::refine_mode> refine; ///< without it, the method's own choice
  int aux_bits = 0;                        ///< of scales and zero points, with an 8-bit t; 0: all of them f16
  bool needs_inputs = false;

  [[nodiscard]] std::string label() const {
    return std::string{to_string(method)} + (variant.empty() ? "" : " " + variant);
  }
};

/// What is tried: every method that needs no levels, and `sinq` in its variants.
/// @param methods  names; empty: all. Round-to-nearest is always there, as the measure of the others.
[[nodiscard]] std::vector<trial> choose_trials(const std::vector<std::string>& methods);

/// How rows and columns spread, over a matrix or one tile of it.
struct spread {
  double kurtosis = 0;
  double imbalance = 0;
};

/// What Sinkhorn normalisation does to the tiles of a matrix, a tile being one group of columns.
struct normalisation {
  std::size_t group_size = 0;
  spread matrix; ///< the whole matrix, as it is
  spread mean_before, worst_before, mean_after, worst_after;
};

/// What one trial made of one matrix.
struct measurement {
  trial what;
  int bits = 0;
  std::size_t group_size = 0;
  double error = 0, column_error = 0, bits_per_weight = 0;
  double seconds = 0, weights = 0; ///< to quantize and pack, so many
  std::optional<double> output_error;
  std::optional<double> error_of_rtn, column_error_of_rtn, output_error_of_rtn; ///< ratios
};

/// Everything found of one matrix.
struct subject_report {
  std::string set, name;
  std::size_t rows = 0, cols = 0;
  std::vector<normalisation> normalisations; ///< one for each group size
  std::vector<measurement> measurements;
};

/// The widths that are tried, and where the work is done.
struct trial_options {
  std::vector<int> bits;
  std::vector<std::size_t> group_sizes;
  sinq::run_options run;
};

/// Trials that fit a width and what is known of inputs.
[[nodiscard]] std::vector<trial> fitting(const std::vector<trial>& trials, int bits, bool has_inputs);

/// Runs every trial that fits on a matrix.
/// @param skipped  gets a line for each trial for which the inputs do not suffice
/// @errors         those of the library, errc::not_representable (the result is not finite); each names the trial
[[nodiscard]] sinq::result<subject_report> try_all(const subject& on, const std::vector<trial>& trials,
                                                   const trial_options& options, std::vector<std::string>& skipped);

} // namespace sinq_quality
