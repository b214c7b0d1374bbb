#include "support/catch.hpp"
#include "support/methods.hpp"
#include "support/random_matrices.hpp"

#include <sinq/pack/pack.hpp>
#include <sinq/quant/quantize.hpp>

#include <Eigen/Dense>

#include <cmath>

using namespace sinq_test;

namespace {

using Eigen::MatrixXd;

/// Inputs whose columns hang together: Gaussian times a random mixing matrix of falling columns.
sinq::input_moments::row_major correlated_inputs(std::size_t tokens, std::size_t cols, std::uint64_t seed) {
  random_source random{seed};
  MatrixXd x(tokens, cols), mix(cols, cols);
  for (double& v : x.reshaped()) v = random.normal();
  for (double& v : mix.reshaped()) v = random.normal() / std::sqrt(static_cast<double>(cols));
  mix.diagonal().array() += 1;
  for (Eigen::Index j = 0; j < mix.cols(); ++j) mix.col(j) *= std::exp(random.normal());
  return (x * mix).cast<float>();
}

MatrixXd to_eigen(const std::vector<float>& v, std::size_t rows, std::size_t cols) {
  return Eigen::Map<const sinq::input_moments::row_major>(v.data(), static_cast<Eigen::Index>(rows),
                                                          static_cast<Eigen::Index>(cols))
      .cast<double>();
}

/// tr((W - W') H (W - W')^T), in f64.
double output_error(const matrix& w, const sinq::quantized_matrix& q, const MatrixXd& h) {
  const auto p = sinq::pack(q);
  if (!p) FAIL(p.error().message);
  const MatrixXd d = to_eigen(w.values, w.rows, w.cols) - to_eigen(sinq::dequantize(*p), w.rows, w.cols);
  return (d * h * d.transpose()).trace();
}

/// GPTQ as its paper writes it, column by column in f64 with the explicit inverse, on fixed scales.
std::vector<std::uint8_t> plain_gptq(const matrix& w, const sinq::quantized_matrix& q, MatrixXd h, double damping) {
  h.diagonal().array() += damping * h.diagonal().mean();
  MatrixXd rest = to_eigen(w.values, w.rows, w.cols);
  std::vector<std::uint8_t> codes(w.values.size());
  MatrixXd inverse = h.inverse();
  for (Eigen::Index j = 0; j < h.cols(); ++j) {
    for (Eigen::Index i = 0; i < rest.rows(); ++i) {
      const auto row = static_cast<std::size_t>(i), col = static_cast<std::size_t>(j);
      const std::size_t g = col / q.format.group_size;
      const double s = double{q.scale_matrix()(row, g)} * double{q.col_scale_at(row, col)};
      const double z = q.zero_at(row, g);
      const double code = std::clamp(std::nearbyint(rest(i, j) / s + z), 0.0, double(sinq::max_code(q.format.bits)));
      codes[row * w.cols + col] = static_cast<std::uint8_t>(code);
      rest.row(i) -= (rest(i, j) - s * (code - z)) / inverse(j, j) * inverse.row(j);
    }
    inverse -= inverse.col(j) * inverse.row(j) / inverse(j, j);
    inverse.row(j).setZero();
    inverse.col(j).setZero();
  }
  return codes;
}

} // namespace

TEST_CASE("feedback chooses the codes of GPTQ as its paper writes it") {
  for (const std::size_t block : {1u, 7u, 128u})
    for (const auto& [rows, cols] : {std::pair<std::size_t, std::size_t>{24, 96}, {5, 65}, {1, 1}}) {
      const matrix w = student_t(rows, cols, 81);
      const auto inputs = sinq::input_moments::of(correlated_inputs(300, cols, 82));
      sinq::quantize_options options{.bits = 3, .group_size = 32, .aux = sinq::aux_dtype::f32, .inputs = &inputs};
      options.method = sinq::method::sinq_gptq;
      options.feedback = {.damping = 0.01, .act_order = false, .block = block};
      const sinq::quantized_matrix q = quantized(w.view(), options);
      const auto expected = plain_gptq(w, q, inputs.hessian.cast<double>(), 0.01);
      std::size_t differ = 0;
      for (std::size_t n = 0; n < expected.size(); ++n) differ += expected[n] != q.codes[n] ? 1 : 0;
      INFO(differ << " of " << expected.size() << " codes differ, block " << block);
      CHECK(differ <= expected.size() / 500); // f32 corrections move a few ties, and what follows them
    }
}

TEST_CASE("feedback lowers the error of the outputs") {
  const matrix w = with_outliers(48, 192, 83);
  const auto inputs = sinq::input_moments::of(correlated_inputs(1000, 192, 84));
  const MatrixXd h = inputs.hessian.cast<double>();
  const auto error = [&](sinq::method method, bool act_order, std::optional<sinq::refine_mode> refine) {
    sinq::quantize_options options{.method = method, .bits = 3, .inputs = &inputs, .refine = refine};
    options.feedback.act_order = act_order;
    return output_error(w, quantized(w.view(), options), h);
  };
  const auto none = sinq::refine_mode::none;
  const double rtn = error(sinq::method::rtn, true, none);
  CHECK(error(sinq::method::gptq, false, none) < 0.8 * rtn);
  CHECK(error(sinq::method::gptq, true, none) < 0.8 * rtn);
  CHECK(error(sinq::method::hadamard_gptq, true, none) < error(sinq::method::hadamard_rtn, true, none));
  const double sinq_error = error(sinq::method::sinq, true, none);
  CHECK(error(sinq::method::sinq_gptq, true, none) < 0.8 * sinq_error);
  CHECK(error(sinq::method::sinq, true, {}) < 0.6 * sinq_error); // refined by the inputs, which have a hessian
}

TEST_CASE("feedback takes the hessian, or a sample, and says what is missing") {
  const matrix w = gaussian(12, 64, 85);
  const auto inputs = sinq::input_moments::of(correlated_inputs(200, 64, 86));
  sinq::input_moments sample, hessian, energies;
  sample.inputs = inputs.inputs;
  hessian.hessian = inputs.hessian;
  energies.second_moment = inputs.second_moment;
  const auto codes = [&](const sinq::input_moments& m) {
    return quantized(w.view(), {.method = sinq::method::gptq, .inputs = &m}).codes;
  };
  const auto a = codes(sample), b = codes(hessian);
  CHECK(std::equal(a.begin(), a.end(), b.begin()));
  const auto refused = [&](const sinq::quantize_options& options, std::string_view says) {
    const auto q = sinq::quantize(w.view(), options);
    REQUIRE_FALSE(q);
    INFO(q.error().message);
    CHECK(q.error().message.find(says) != std::string::npos);
  };
  refused({.method = sinq::method::gptq, .inputs = &energies}, "hessian");
  refused({.method = sinq::method::gptq}, "needs input moments");
  sinq::quantize_options options{.method = sinq::method::gptq, .inputs = &inputs};
  options.feedback.damping = 0;
  refused(options, "damping 0");
  sinq::input_moments indefinite = hessian;
  indefinite.hessian(0, 1) = indefinite.hessian(1, 0) = 1e6f;
  refused({.method = sinq::method::gptq, .inputs = &indefinite}, "positive definite");
  indefinite.hessian(3, 3) = std::numeric_limits<float>::quiet_NaN();
  refused({.method = sinq::method::gptq, .inputs = &indefinite}, "hessian");
}

TEST_CASE("feedback survives inputs that are all zero, dead columns, and every kind of matrix, on any threads") {
  for (const auto& [rows, cols] : ragged_shapes) {
    auto x = correlated_inputs(50, cols, 87);
    x.col(0).setZero();
    for (const bool dead : {false, true}) {
      if (dead) x.setZero();
      const auto inputs = sinq::input_moments::of(x);
      for (const named_matrix& kind : every_kind(rows, cols, 88))
        for (const sinq::method method : {sinq::method::gptq, sinq::method::sinq_gptq, sinq::method::hadamard_gptq}) {
          sinq::thread_pool one{1}, three{3};
          const auto a = quantized(kind.m.view(), {.method = method, .inputs = &inputs, .run = {.threads = &one}});
          const auto b = quantized(kind.m.view(), {.method = method, .inputs = &inputs, .run = {.threads = &three}});
          INFO(kind.name << ", " << rows << " x " << cols << ", " << sinq::to_string(method));
          CHECK(std::equal(a.codes.begin(), a.codes.end(), b.codes.begin()));
          const auto p = sinq::pack(a);
          REQUIRE(p);
          for (const float v : sinq::dequantize(*p)) REQUIRE(sinq::is_finite(v));
        }
    }
  }
}
