#pragma once

#include <sinq/quant/presets.hpp>
#include <sinq/quant/quantize.hpp>

#include <CLI/CLI.hpp>

#include <string>
#include <vector>

namespace sinq_cli {

/// The value of --refine for which a language model measures the inputs of its own layers.
inline constexpr const char* refine_self = "self";

/// How a matrix is quantized, as told on the command line.
struct quantizer_flags {
  std::size_t group_size = 64;
  std::size_t tile = 0; ///< side of square tiles; 0: tiles of all rows
  std::string aux = "f16";
  bool symmetric = false;
  std::string zero = "rounded";
  std::string shift = "mean";
  std::vector<float> levels;
  std::string moments; ///< path; empty: no calibration
  std::string refine;  ///< none, weights, self, or a path of moments; empty: what suits the method
  bool no_feedback = false;
  std::string preset; ///< name in the preset table; empty: none
  int scale_bits = 0;
  int zero_bits = 0;
  std::size_t super_group = 0;
  std::string col_scale; ///< type of t; empty: what suits the scales
  int iterations = sinq::sinkhorn_options{}.iterations;
  std::string sinkhorn;    ///< rule; empty: what suits the method
  std::size_t threads = 0; ///< 0: one for each hardware thread
};

/// Adds the options that `quantize` and `compare` share.
void add_quantizer_flags(CLI::App& app, quantizer_flags& flags);
void add_threads_flag(CLI::App& app, std::size_t& threads);
/// The file of moments that the flags name; empty if none.
[[nodiscard]] std::string moments_path(const quantizer_flags& flags);
/// Names of all presets.
[[nodiscard]] std::vector<std::string> preset_names();
/// Names of all methods.
[[nodiscard]] std::vector<std::string> method_names();

/// The flags as the library takes them; method, bits, inputs and executor are the caller's.
/// @param flags  borrowed: the options refer to its levels
[[nodiscard]] sinq::quantize_options to_options(const quantizer_flags& flags);

} // namespace sinq_cli
