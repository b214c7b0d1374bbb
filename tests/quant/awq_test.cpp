#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/methods.hpp"
#include "support/oracle.hpp"

#include <sinq/pack/pack.hpp>
#include <sinq/quant/quantize.hpp>

#include <cmath>

using namespace sinq_test;

namespace {

/// What a result does to the outputs, in double: mean over tokens, summed over rows.
double output_loss(const matrix& m, const sinq::quantized_matrix& q, const sinq::input_moments& inputs, bool absolute) {
  Eigen::MatrixXd d(m.rows, m.cols);
  for (std::size_t i = 0; i < m.rows; ++i)
    for (std::size_t j = 0; j < m.cols; ++j)
      d(static_cast<Eigen::Index>(i), static_cast<Eigen::Index>(j)) = value_of_code(q, i, j) - double{m(i, j)};
  const Eigen::MatrixXd y = oracle::matmul(inputs.inputs.cast<double>(), d);
  return (absolute ? y.cwiseAbs().sum() : y.squaredNorm()) / static_cast<double>(y.rows());
}

sinq::quantized_matrix run(const matrix& m, sinq::method method, const sinq::input_moments& inputs) {
  sinq::quantize_options options{.method = method, .bits = 3, .aux = sinq::aux_dtype::f32, .inputs = &inputs};
  options.refine = sinq::refine_mode::none;
  auto q = sinq::quantize(m.view(), options);
  if (!q) FAIL(q.error().message);
  return *std::move(q);
}

} // namespace

TEST_CASE("the error of outputs is that of the formulas, from a sample and from second moments") {
  for (const auto& [rows, cols] : ragged_shapes) {
    const matrix d = with_outliers(rows, cols, 71);
    const sinq::input_moments both = some_inputs(cols);
    sinq::input_moments moments, sample;
    moments.hessian = both.hessian;
    sample.inputs = both.inputs;
    const Eigen::MatrixXd y = oracle::matmul(both.inputs.cast<double>(), oracle::to_double(d.view()));
    std::vector<double> squared, absolute;
    for (Eigen::Index i = 0; i < y.cols(); ++i) {
      squared.push_back(y.col(i).squaredNorm() / static_cast<double>(y.rows()));
      absolute.push_back(y.col(i).cwiseAbs().sum() / static_cast<double>(y.rows()));
    }
    std::vector<double> found(rows);
    using sinq::output_error;
    output_error{sample, sinq::output_loss::squared}(d.view(), found);
    CHECK(close_each(std::span<const double>{found}, std::span<const double>{squared}, 1e-6));
    output_error{sample, sinq::output_loss::absolute}(d.view(), found);
    CHECK(close_each(std::span<const double>{found}, std::span<const double>{absolute}, 1e-6));
    output_error{moments, sinq::output_loss::squared}(d.view(), found);
    CHECK(close_to_largest(std::span<const double>{found}, std::span<const double>{squared}, 1e-5));
    std::vector<double> one(1); // rows do not depend on each other
    for (std::size_t i = 0; i < rows; ++i) {
      output_error{moments, sinq::output_loss::squared}(d.view().block(i, 0, 1, cols), one);
      CHECK(one[0] == found[i]);
    }
  }
}

TEST_CASE("column factors are those of the formula") {
  const std::vector<float> x{0.5f, 2.0f, 1e-9f, 0.0f}, w{0.02f, 0.01f, 0.0f, 0.03f};
  for (const double alpha : {0.0, 0.5, 0.95}) {
    std::vector<double> expected;
    for (std::size_t j = 0; j < x.size(); ++j) {
      const double a = std::max(std::pow(double{x[j]}, alpha), 1e-4);
      expected.push_back(std::max(a / (std::pow(double{w[j]}, 1 - alpha) + 1e-4), 1e-4));
    }
    const auto [low, high] = std::minmax_element(expected.begin(), expected.end());
    const double middle = std::sqrt(*low * *high);
    for (double& value : expected) value /= middle;
    const std::vector<float> found = sinq::awq_factors(x, w, alpha);
    CHECK(close_each(std::span<const float>{found}, std::span<const double>{expected}, 1e-6));
  }
}

TEST_CASE("the search lowers the error of outputs") {
  const matrix m = student_t(96, 192, 72);
  const sinq::input_moments inputs = some_inputs(192);
  for (const bool absolute : {false, true}) {
    const double rtn = output_loss(m, run(m, sinq::method::rtn, inputs), inputs, absolute);
    const double awq = output_loss(m, run(m, sinq::method::awq, inputs), inputs, absolute);
    const double sinq_loss = output_loss(m, run(m, sinq::method::sinq, inputs), inputs, absolute);
    const double asinq =
        output_loss(m, run(m, absolute ? sinq::method::asinq_l1 : sinq::method::asinq, inputs), inputs, absolute);
    CHECK(awq < 0.9 * rtn);
    CHECK(asinq < 0.9 * sinq_loss);
  }
}

TEST_CASE("second moments and a sample find the same factors") {
  const matrix m = with_outliers(40, 100, 73);
  sinq::input_moments sample = some_inputs(100), moments = sample;
  moments.inputs.resize(0, 0);
  for (const auto method : {sinq::method::awq, sinq::method::asinq})
    CHECK(run(m, method, sample).col_scale == run(m, method, moments).col_scale);
}

TEST_CASE("what the search misses is named") {
  const matrix m = gaussian(4, 32, 74);
  const sinq::input_moments full = some_inputs(32);
  const auto refused = [&](sinq::method method, const sinq::input_moments& inputs, std::string_view says) {
    const auto q = sinq::quantize(m.view(), {.method = method, .inputs = &inputs});
    REQUIRE_FALSE(q);
    INFO(q.error().message);
    CHECK(q.error().code == sinq::errc::invalid_argument);
    CHECK(q.error().message.find(says) != std::string::npos);
  };
  sinq::input_moments some;
  some.second_moment = full.second_moment;
  refused(sinq::method::awq, some, "needs mean_abs");
  some.mean_abs = full.mean_abs;
  refused(sinq::method::awq, some, "needs hessian");
  refused(sinq::method::asinq_l1, some, "needs inputs, a sample");
  some.hessian = full.hessian;
  refused(sinq::method::asinq_l1, some, "needs inputs, a sample");
  CHECK(sinq::quantize(m.view(), {.method = sinq::method::asinq, .inputs = &some}));
}

TEST_CASE("inputs and weights beyond the ordinary give something finite") {
  for (const named_matrix& kind : every_kind(9, 70, 75))
    for (const float size : {0.0f, 1e-30f, 1e30f, 3e38f}) {
      sinq::input_moments inputs;
      inputs.inputs = some_inputs(70).inputs * (size == 3e38f ? 1e34f : size);
      if (size == 3e38f) inputs.inputs.leftCols(35).setZero();
      for (const auto method : {sinq::method::awq, sinq::method::asinq, sinq::method::asinq_l1}) {
        const auto packed = sinq::pack(run(kind.m, method, inputs));
        INFO(kind.name << " inputs of " << size);
        REQUIRE(packed);
        for (const float w : sinq::dequantize(*packed)) REQUIRE(std::isfinite(w));
      }
    }
}
