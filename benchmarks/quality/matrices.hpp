#pragma once

#include <sinq/core/aligned_buffer.hpp>
#include <sinq/core/weight_view.hpp>
#include <sinq/math/input_moments.hpp>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace sinq_quality {

/// A weight in memory, and what is known of the inputs that it meets.
struct loaded_matrix {
  sinq::shared_bytes data;
  sinq::dtype type = sinq::dtype::f32;
  std::size_t rows = 0, cols = 0;
  std::optional<sinq::input_moments> inputs; ///< what methods are told
  std::optional<sinq::input_moments> truth;  ///< what output errors are measured with; without it, inputs

  [[nodiscard]] sinq::weight_view view() const { return {data.data(), type, rows, cols}; }
  /// Moments to measure with, or nullptr.
  [[nodiscard]] const sinq::input_moments* measured_with() const {
    return truth ? &*truth : inputs ? &*inputs : nullptr;
  }
};

/// A matrix that methods are compared on.
struct subject {
  std::string set; ///< matrices of one set are averaged: "real" or "synthetic"
  std::string name;
  std::size_t rows = 0, cols = 0;
  std::function<sinq::result<loaded_matrix>()> load;
};

/// Which real matrices are taken, and from where.
struct real_choice {
  std::vector<std::string> paths; ///< safetensors files and model directories
  std::string only;               ///< REGEX for names; empty: what the tool would quantize
  std::size_t most = 0;           ///< of each path, evenly chosen; 0: ten of a directory, all of a file
  std::string moments;            ///< path of calibration; empty: none
};

/// Positions of at most `most` of `count` things, the first, the last and evenly between them.
[[nodiscard]] std::vector<std::size_t> evenly(std::size_t count, std::size_t most);

/// The matrices of safetensors files and models.
/// @errors  those of io::model_reader and io::moments_file, errc::invalid_argument (the expression)
[[nodiscard]] sinq::result<std::vector<subject>> real_matrices(const real_choice& choice);

/// Gaussian, Student-t of 5 degrees of freedom, and that with outlier rows and columns. Each meets inputs
/// x_j = s_j (z_j + sum_f l_jf u_f) with s log-normal, 8 shared factors u and 2 K tokens, of which methods see the
/// sample, while errors are measured with the exact E[x x^T].
/// @param only  REGEX for the families' names
/// @errors      errc::invalid_argument (the expression)
[[nodiscard]] sinq::result<std::vector<subject>> synthetic_matrices(std::size_t rows, std::size_t cols,
                                                                    std::uint64_t seed, const std::string& only);

} // namespace sinq_quality
