#pragma once

/// What each line of the method table needs to run, so that tests can go through all of them.

#include "support/catch.hpp"
#include "support/random_matrices.hpp"

#include <sinq/math/hadamard.hpp>
#include <sinq/quant/quantize.hpp>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

namespace sinq_test {

/// Levels that rise unevenly from -1.5 to 2, none of them 0.
[[nodiscard]] inline std::vector<float> some_levels(int bits) {
  const int top = sinq::max_code(bits);
  std::vector<float> levels;
  for (int k = 0; k <= top; ++k) {
    const double place = -1 + 2.0 * (k + 0.25 * (k % 2)) / (top + 0.25);
    levels.push_back(static_cast<float>((place < 0 ? 1.5 : 2.0) * place * (0.4 + 0.6 * std::fabs(place))));
  }
  return levels;
}

/// Inputs for all methods that want some: a sample of 24 tokens, some columns much larger than others.
[[nodiscard]] inline sinq::input_moments some_inputs(std::size_t cols, std::uint64_t seed = 99) {
  random_source random{seed};
  sinq::input_moments::row_major x(24, static_cast<Eigen::Index>(cols));
  for (Eigen::Index j = 0; j < x.cols(); ++j) {
    const double size = std::exp(1.5 * random.normal());
    for (Eigen::Index t = 0; t < x.rows(); ++t) x(t, j) = static_cast<float>(size * random.normal());
  }
  return sinq::input_moments::of(std::move(x));
}

/// Options with which methods run as they are, without refinement, on matrices of that many columns.
class method_runs {
public:
  explicit method_runs(std::size_t cols) : inputs_{some_inputs(cols)} {
    for (const int bits : sinq::supported_bits) levels_.push_back(some_levels(bits));
  }

  /// Nothing if the method has no such width or no symmetric form.
  [[nodiscard]] std::optional<sinq::quantize_options> find(const sinq::method_info& method, int bits,
                                                           bool symmetric = false) const {
    sinq::quantize_options options{.method = method.id, .bits = bits, .symmetric = symmetric};
    options.refine = sinq::refine_mode::none;
    for (const std::vector<float>& levels : levels_)
      if (levels.size() == static_cast<std::size_t>(sinq::max_code(bits)) + 1) options.levels = levels;
    if (method.needs_inputs) options.inputs = &inputs_;
    if (!check_options(options)) return std::nullopt;
    return options;
  }

  /// At the method's only width, or 4 bits.
  [[nodiscard]] sinq::quantize_options usual(const sinq::method_info& method) const {
    return find(method, method.bits != 0 ? method.bits : 4).value();
  }

private:
  sinq::input_moments inputs_;
  std::vector<std::vector<float>> levels_;
};

/// The result of a run that must succeed.
[[nodiscard]] inline sinq::quantized_matrix quantized(const sinq::weight_view& w,
                                                      const sinq::quantize_options& options = {}) {
  auto q = sinq::quantize(w, options);
  if (!q) FAIL(q.error().message);
  return *std::move(q);
}

/// Whether two results are equal to the bit.
[[nodiscard]] inline bool same_result(const sinq::quantized_matrix& a, const sinq::quantized_matrix& b) {
  return a.format == b.format && std::equal(a.codes.begin(), a.codes.end(), b.codes.begin(), b.codes.end()) &&
         a.scale == b.scale && a.zero == b.zero && a.col_scale == b.col_scale && a.scale_base == b.scale_base &&
         a.zero_base == b.zero_base && a.custom_levels == b.custom_levels;
}

/// The weights as a method sees them: rotated where its format says so.
[[nodiscard]] inline matrix as_rotated(matrix m, const sinq::matrix_format& format) {
  if (format.rotation != 0)
    for (std::size_t i = 0; i < m.rows; ++i) sinq::hadamard_rotate(m.view().row(i), format.rotation);
  return m;
}

/// scale (level - zero) t of one code, in double.
[[nodiscard]] inline double value_of_code(const sinq::quantized_matrix& q, std::size_t i, std::size_t j,
                                          std::size_t code) {
  const std::size_t g = j / q.format.group_size;
  return double{q.scale_matrix()(i, g)} * (double{q.levels()[code]} - double{q.zero_at(i, g)}) *
         double{q.col_scale_at(i, j)};
}
[[nodiscard]] inline double value_of_code(const sinq::quantized_matrix& q, std::size_t i, std::size_t j) {
  return value_of_code(q, i, j, q.code_matrix()(i, j));
}

/// The largest distance of two neighbouring levels.
[[nodiscard]] inline double widest_gap(std::span<const float> levels) {
  double widest = 0;
  for (std::size_t k = 1; k < levels.size(); ++k) widest = std::max(widest, double{levels[k]} - double{levels[k - 1]});
  return widest;
}

} // namespace sinq_test
