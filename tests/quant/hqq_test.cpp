#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/methods.hpp"

#include <sinq/quant/hqq.hpp>
#include <sinq/quant/sinkhorn_quantizer.hpp>

#include <Eigen/Core>

#include <cmath>

using namespace sinq_test;

namespace {

static_assert(sinq::quantizer<sinq::hqq_quantizer>);
static_assert(sinq::quantizer<sinq::sinkhorn_quantizer<sinq::hqq_quantizer>>);

double mean_error(const matrix& m, const sinq::quantized_matrix& q) {
  double sum = 0;
  for (std::size_t i = 0; i < m.rows; ++i)
    for (std::size_t j = 0; j < m.cols; ++j) sum += std::fabs(value_of_code(q, i, j) - double{m(i, j)});
  return sum / static_cast<double>(m.values.size());
}

/// Zero points as the paper's formulas give them in double, over groups of whole rows.
std::vector<double> plain_zeros(const matrix& m, int bits, const sinq::hqq_solver& s, sinq::hqq_rule rule) {
  const double top = sinq::max_code(bits);
  std::vector<double> scale(m.rows), zero(m.rows), kept;
  for (std::size_t i = 0; i < m.rows; ++i) {
    const auto row = m.view().row(i);
    const auto [low, high] = std::minmax_element(row.begin(), row.end());
    scale[i] = (double{*high} - double{*low}) / top;
    zero[i] = -double{*low} / scale[i];
  }
  double best = std::numeric_limits<double>::infinity();
  double beta = double{s.beta};
  for (int k = 0; k < s.iterations; ++k, beta *= double{s.kappa}) {
    double sum = 0;
    for (std::size_t i = 0; i < m.rows; ++i) {
      double mean = 0;
      for (std::size_t j = 0; j < m.cols; ++j) {
        const double w = m(i, j);
        const double code = std::clamp(std::nearbyint(w / scale[i] + zero[i]), 0.0, top);
        const double off = w - scale[i] * (code - zero[i]);
        const double shrunk = std::max(0.0, std::fabs(off) - std::pow(std::fabs(off), double{s.lp_norm} - 1) / beta);
        sum += std::fabs(off);
        mean += code - (w - std::copysign(off == 0 ? 0.0 : shrunk, off)) / scale[i];
      }
      zero[i] = mean / static_cast<double>(m.cols);
    }
    const bool better = sum < best * (1 - 1e-7); // the reference compares in f32
    if (better) best = sum;
    if (!better && rule == sinq::hqq_rule::stop_when_worse) return zero;
    if (better) kept = zero;
  }
  return rule == sinq::hqq_rule::keep_best ? kept : zero;
}

} // namespace

TEST_CASE("hqq finds the zero points of the formulas") {
  for (const double sigma : {0.02, 3.0}) // of the second, most errors are beyond the threshold
    for (const auto rule : {sinq::hqq_rule::stop_when_worse, sinq::hqq_rule::keep_best})
      for (const int bits : {3, 4, 8}) {
        const matrix m = gaussian(12, 90, 51, sigma);
        const sinq::hqq_options options{.group_size = 90, .solver = {}, .rule = rule, .aux = sinq::aux_dtype::f32};
        const auto q = sinq::hqq_quantizer{bits, options}(m.view());
        REQUIRE(q);
        const std::vector<double> expected = plain_zeros(m, bits, options.solver, rule);
        INFO(bits << " bits, sigma " << sigma);
        CHECK(close_to_largest(std::span<const float>{q->zero}, std::span{expected}, 1e-5));
      }
}

TEST_CASE("hqq lowers the mean error, codes belong to its zero points, and scales stay") {
  const matrix m = with_outliers(48, 256, 52);
  for (const int bits : sinq::supported_bits) {
    const auto start = sinq::hqq_quantizer{bits, {.solver = {.iterations = 0}}}(m.view());
    const auto stopped = sinq::hqq_quantizer{bits}(m.view());
    const auto best = sinq::hqq_quantizer{bits, {.rule = sinq::hqq_rule::keep_best}}(m.view());
    REQUIRE((start && stopped && best));
    CHECK(mean_error(m, *stopped) < mean_error(m, *start));
    CHECK(mean_error(m, *best) < mean_error(m, *start));
    CHECK(start->scale == stopped->scale);
    for (const float zero : stopped->zero) CHECK(static_cast<float>(static_cast<sinq::float16>(zero)) == zero);
  }
}

TEST_CASE("the shrinking of errors is that of the formula, and nothing below its threshold") {
  for (const double beta : {0.5, 10.0, 12.2})
    for (const double p : {0.2, 0.7, 1.0}) {
      const sinq::detail::hqq_shrink shrink{p, beta};
      CHECK(shrink.zero_below <= std::pow(beta, -1 / (2 - p)));
      for (const double x : {1e-9, 1e-3, 0.05, 0.1449, 0.17, 0.3, 1.0, 7.0, 1e6}) {
        const double expected = std::max(0.0, x - std::pow(x, p - 1) / beta);
        CHECK(shrink(static_cast<float>(x)) == Approx(expected).epsilon(1e-5).margin(1e-7 * x));
        CHECK(shrink(-static_cast<float>(x)) == -shrink(static_cast<float>(x)));
      }
      CHECK(shrink(0.0f) == 0.0f);
    }
}

TEST_CASE("hqq keeps groups of zeros, constant groups and tiny weights") {
  for (const float constant : {0.0f, 5.0f, -0.37f, 1e-30f, -3e30f}) {
    const auto q = sinq::hqq_quantizer{4, {.group_size = 8}}(matrix{2, 8, constant}.view());
    REQUIRE(q);
    CHECK(value_of_code(*q, 1, 7) == Approx(double{constant}).epsilon(1e-6));
  }
  const matrix m = gaussian(8, 64, 53, 1e-8);
  const auto q = sinq::hqq_quantizer{4}(m.view());
  REQUIRE(q);
  CHECK(mean_error(m, *q) < 1e-9);
}

TEST_CASE("hqq refuses constants that it cannot run with") {
  const auto refused = [](const sinq::hqq_solver& solver, std::string_view says) {
    const auto q = sinq::hqq_quantizer{4, {.solver = solver}}(gaussian(2, 8, 1).view());
    REQUIRE_FALSE(q);
    CHECK(q.error().code == sinq::errc::invalid_argument);
    CHECK(q.error().message.find(says) != std::string::npos);
  };
  refused({.iterations = -1}, "iterations is -1");
  refused({.lp_norm = 1.5f}, "lp_norm is 1.5");
  refused({.beta = 0}, "beta is 0");
  refused({.kappa = std::nanf("")}, "kappa nan");
  const auto empty = sinq::hqq_quantizer{4}(sinq::matrix_view<const float>{});
  REQUIRE_FALSE(empty);
  CHECK(empty.error().code == sinq::errc::empty_matrix);
}
