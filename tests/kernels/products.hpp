#pragma once

/// What matmul should give, in double, and how far from it float sums may be.

#include "support/compare.hpp"
#include "support/methods.hpp"
#include "support/random_matrices.hpp"

#include <sinq/kernels/matmul.hpp>
#include <sinq/pack/pack.hpp>

#include <vector>

namespace sinq_test {

/// Activations of very different sizes.
[[nodiscard]] inline matrix tokens(std::size_t count, std::size_t cols, std::uint64_t seed = 5) {
  random_source random{seed};
  matrix x{count, cols};
  for (float& value : x.values) value = static_cast<float>(random.normal() * std::exp(random.normal()));
  return x;
}

/// y = x W^T in double, and the sums of the magnitudes of all that enters it, zero points taken apart.
struct products {
  std::size_t tokens = 0;
  std::size_t rows = 0;
  std::vector<double> y, terms; ///< [M x N]
};

/// x' = (R x) t for the rows of one tile, in double.
[[nodiscard]] inline std::vector<double> folded(const sinq::quantized_matrix& q, std::span<const float> x,
                                                std::size_t row) {
  std::vector<double> folded(x.begin(), x.end());
  if (q.format.rotation != 0) sinq::hadamard_rotate(std::span{folded}, q.format.rotation);
  for (std::size_t j = 0; j < folded.size(); ++j) folded[j] *= double{q.col_scale_at(row, j)};
  return folded;
}

/// The products of weights with x' that are given by value(m, row): [K] for each token and row.
template <class Folded>
[[nodiscard]] products multiply_folded(const sinq::quantized_matrix& q, std::size_t tokens, Folded&& value) {
  const sinq::matrix_format& f = q.format;
  products p{tokens, f.rows, std::vector<double>(tokens * f.rows), std::vector<double>(tokens * f.rows)};
  for (std::size_t m = 0; m < tokens; ++m) {
    std::vector<double> x;
    for (std::size_t i = 0; i < f.rows; ++i) {
      if (i == 0 || f.row_tile(i) != f.row_tile(i - 1)) x = value(m, i);
      for (std::size_t j = 0; j < f.cols; ++j) {
        const double scale = double{q.scale_matrix()(i, j / f.group_size)};
        const double level = double{q.levels()[q.code_matrix()(i, j)]};
        const double zero = double{q.zero_at(i, j / f.group_size)};
        p.y[m * f.rows + i] += scale * (level - zero) * x[j];
        p.terms[m * f.rows + i] += std::fabs(scale) * (std::fabs(level) + std::fabs(zero)) * std::fabs(x[j]);
      }
    }
  }
  return p;
}

/// How far products of numbers that are rounded to bf16 are from exact ones, of the sum of the magnitudes of what
/// enters them: 2^-8 for each of the two, half a step of a significand of 8 bits just above a power of two, and f32
/// sums.
inline constexpr double bf16_tolerance = 0x1p-7 + 0x1p-16 + 1e-6;

/// The products of weights with tokens.
[[nodiscard]] inline products multiply(const sinq::quantized_matrix& q, const matrix& x) {
  return multiply_folded(q, x.rows, [&](std::size_t m, std::size_t i) { return folded(q, x.view().row(m), i); });
}

/// |y - expected| <= tolerance times the sum of the magnitudes of what enters it.
[[nodiscard]] inline verdict close_to_products(const matrix& y, const products& expected, double tolerance) {
  if (y.rows != expected.tokens || y.cols != expected.rows)
    return detail::differs("y is ", y.rows, " x ", y.cols, ", expected ", expected.tokens, " x ", expected.rows);
  for (std::size_t n = 0; n < y.values.size(); ++n) {
    const double difference = std::fabs(double{y.values[n]} - expected.y[n]);
    if (!(difference <= tolerance * expected.terms[n]))
      return detail::differs("y of token ", n / y.cols, ", row ", n % y.cols, " is ", y.values[n], ", expected ",
                             expected.y[n], " within ", tolerance * expected.terms[n]);
  }
  return {};
}

[[nodiscard]] inline sinq::panel_matrix panels(const sinq::quantized_matrix& q) {
  const auto p = sinq::pack(q);
  if (!p) FAIL(p.error().message);
  auto w = sinq::to_panels(*p);
  if (!w) FAIL(w.error().message);
  return *std::move(w);
}

[[nodiscard]] inline matrix multiplied(const sinq::panel_matrix& w, const matrix& x,
                                       const sinq::matmul_options& options = {.precision = sinq::precision::exact}) {
  matrix y{x.rows, w.format.rows};
  const auto done = sinq::matmul(w, x.view(), y.view(), options);
  if (!done) FAIL(done.error().message);
  return y;
}

} // namespace sinq_test
