#pragma once

#include <sinq/quant/quantize.hpp>

#include <CLI/CLI.hpp>

#include <string>
#include <vector>

namespace sinq_cli {

/// How a matrix is quantized, as told on the command line.
struct quantizer_flags {
  std::size_t group_size = 64;
  std::string aux = "f16";
  bool symmetric = false;
  std::string zero = "rounded";
  int iterations = sinq::sinkhorn_options{}.iterations;
  std::size_t threads = 0; ///< 0: one for each hardware thread
};

/// Adds the options that `quantize` and `compare` share.
void add_quantizer_flags(CLI::App& app, quantizer_flags& flags);
void add_threads_flag(CLI::App& app, std::size_t& threads);
/// Names of all methods.
[[nodiscard]] std::vector<std::string> method_names();

/// The flags as the library takes them; method, bits and executor are the caller's.
[[nodiscard]] sinq::quantize_options to_options(const quantizer_flags& flags);

/// Format that a matrix of that shape will have, short of surprises in its values: an f16 auxiliary that does not fit
/// adds or widens t. @pre the options are valid and rows and cols are not 0
[[nodiscard]] sinq::result<sinq::matrix_format> planned_format(sinq::quantize_options options, std::size_t rows,
                                                               std::size_t cols);

} // namespace sinq_cli
