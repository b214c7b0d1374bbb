#include "support/catch.hpp"
#include "support/oracle.hpp"
#include "support/random_matrices.hpp"

#include <sinq/metrics.hpp>
#include <sinq/quant/quantize.hpp>

#include <cmath>
#include <limits>

using namespace sinq_test;

namespace {

/// A weight of 150 rows, more than two blocks of sums, and what 3 bits make of it.
struct quantized_weight {
  explicit quantized_weight(std::uint64_t seed) : original{with_outliers(150, 96, seed)} {
    packed = sinq::pack(*sinq::quantize(original.view(), {.bits = 3, .group_size = 32})).value();
  }
  [[nodiscard]] oracle::MatrixXd weights() const { return oracle::to_double(original.view()); }
  [[nodiscard]] oracle::MatrixXd approximation() const {
    matrix w{original.rows, original.cols};
    sinq::dequantize(packed, w.view());
    return oracle::to_double(w.view());
  }

  matrix original;
  sinq::packed_matrix packed;
};

/// Correlated inputs of uneven columns, [tokens x cols].
sinq::input_moments::row_major sample(Eigen::Index tokens, Eigen::Index cols, std::uint64_t seed) {
  random_source random{seed};
  sinq::input_moments::row_major x(tokens, cols);
  std::vector<double> size(static_cast<std::size_t>(cols)), loading(size.size());
  for (double& s : size) s = std::exp(0.8 * random.normal());
  for (double& l : loading) l = random.normal();
  for (Eigen::Index t = 0; t < tokens; ++t) {
    const double shared = random.normal();
    for (Eigen::Index j = 0; j < cols; ++j)
      x(t, j) = static_cast<float>(size[static_cast<std::size_t>(j)] *
                                   (random.normal() + shared * loading[static_cast<std::size_t>(j)]));
  }
  return x;
}

/// ||X (W - W')^T|| / ||X W^T||, with the products written out.
double of_outputs(const oracle::MatrixXd& x, const oracle::MatrixXd& w, const oracle::MatrixXd& v) {
  return (oracle::matmul(x, w) - oracle::matmul(x, v)).norm() / oracle::matmul(x, w).norm();
}

sinq::input_moments with_energies(std::vector<float> second_moment) {
  sinq::input_moments m;
  m.second_moment = std::move(second_moment);
  return m;
}

sinq::input_moments with_sample(const sinq::input_moments::row_major& x) {
  sinq::input_moments m;
  m.inputs = x;
  return m;
}

sinq::input_moments with_hessian(const sinq::input_moments::row_major& hessian) {
  sinq::input_moments m;
  m.hessian = hessian;
  return m;
}

double measure(const quantized_weight& w, const sinq::input_moments& inputs) {
  const auto error = sinq::measure_error(w.original.view(), w.packed, {}, &inputs);
  REQUIRE(error);
  REQUIRE(error->output_error);
  return *error->output_error;
}

} // namespace

TEST_CASE("the output error is that of the layer's outputs, from every form of second moments") {
  const quantized_weight w{1};
  const auto x = sample(300, 96, 2);
  const auto all = sinq::input_moments::of(x);
  const double expected = of_outputs(x.cast<double>(), w.weights(), w.approximation());
  CHECK(measure(w, with_sample(x)) == Approx(expected).epsilon(1e-12));
  CHECK(measure(w, with_hessian(all.hessian)) == Approx(expected).epsilon(1e-6)); // f32 moments
  CHECK(measure(w, all) == measure(w, with_hessian(all.hessian)));
  const auto energies = Eigen::Map<const Eigen::VectorXf>(all.second_moment.data(), 96).cast<double>().eval();
  const oracle::MatrixXd uncorrelated = energies.cwiseSqrt().asDiagonal();
  const double diagonal = of_outputs(uncorrelated, w.weights(), w.approximation());
  CHECK(measure(w, with_energies(all.second_moment)) == Approx(diagonal).epsilon(1e-12));
  CHECK(std::fabs(diagonal / expected - 1) > 1e-3); // the two are not the same
}

TEST_CASE("the output error with unit moments is the plain one, with energies the weighted one") {
  const quantized_weight w{3};
  const std::vector<float> ones(96, 1.0f);
  const auto plain = sinq::measure_error(w.original.view(), w.packed);
  CHECK(measure(w, with_energies(ones)) == Approx(plain->relative_error).epsilon(1e-12));
  const auto all = sinq::input_moments::of(sample(64, 96, 4));
  const auto weighted = sinq::measure_error(w.original.view(), w.packed, all.energies());
  CHECK(measure(w, with_energies(all.second_moment)) == Approx(weighted->weighted_relative_error).epsilon(1e-12));
}

TEST_CASE("the output error sees a planted bug that the plain one hides") {
  quantized_weight w{5};
  const auto x = sample(300, 96, 6);
  const auto all = sinq::input_moments::of(x);
  const double before = measure(w, all);
  // some codes of the column whose inputs are largest change by two steps, more than feedback between columns undoes
  const auto energies = Eigen::Map<const Eigen::VectorXf>(all.second_moment.data(), 96);
  Eigen::Index loudest = 0;
  energies.maxCoeff(&loudest);
  auto q = sinq::unpack(w.packed);
  for (std::size_t i = 0; i < 150; i += 10) {
    auto& code = q.codes.span()[i * 96 + static_cast<std::size_t>(loudest)];
    code = static_cast<std::uint8_t>(code < 2 ? code + 2 : code - 2);
  }
  const double plain_before = sinq::measure_error(w.original.view(), w.packed)->relative_error;
  w.packed = sinq::pack(q).value();
  const double plain_after = sinq::measure_error(w.original.view(), w.packed)->relative_error;
  const double after = measure(w, all);
  CHECK(after == Approx(of_outputs(x.cast<double>(), w.weights(), w.approximation())).epsilon(1e-6));
  CHECK(after / before > 1.01);
  CHECK(after / before - 1 > 5 * (plain_after / plain_before - 1));
}

TEST_CASE("the output error of degenerate inputs and weights") {
  const quantized_weight w{7};
  CHECK(measure(w, with_energies(std::vector<float>(96, 0.0f))) == 0);
  sinq::input_moments only_abs;
  only_abs.mean_abs.assign(96, 1.0f);
  CHECK_FALSE(sinq::measure_error(w.original.view(), w.packed, {}, &only_abs)->output_error);
  const matrix zero{150, 96};
  const auto ones = with_energies(std::vector<float>(96, 1.0f));
  CHECK(std::isinf(*sinq::measure_error(zero.view(), w.packed, {}, &ones)->output_error));
  const auto short_one = with_energies(std::vector<float>(95, 1.0f));
  CHECK(sinq::measure_error(w.original.view(), w.packed, {}, &short_one).error().code == sinq::errc::invalid_argument);
  const auto poisoned = with_energies(std::vector<float>(96, std::numeric_limits<float>::infinity()));
  CHECK(sinq::measure_error(w.original.view(), w.packed, {}, &poisoned).error().code == sinq::errc::non_finite);
}

TEST_CASE("errors are the same for every number of threads") {
  const quantized_weight w{8};
  const auto all = sinq::input_moments::of(sample(200, 96, 9));
  const auto weights = sinq::column_normalizing_weights(w.original.view());
  sinq::serial_executor one;
  sinq::thread_pool three{3}, seven{7};
  const auto with = [&](sinq::executor& threads) {
    return sinq::measure_error(w.original.view(), w.packed, weights, &all, {.threads = &threads, .progress = {}})
        .value();
  };
  const sinq::error_metrics expected = with(one);
  for (sinq::executor* const threads : {static_cast<sinq::executor*>(&three), static_cast<sinq::executor*>(&seven)}) {
    const sinq::error_metrics m = with(*threads);
    CHECK(m.mse == expected.mse);
    CHECK(m.relative_error == expected.relative_error);
    CHECK(m.weighted_relative_error == expected.weighted_relative_error);
    CHECK(m.output_error == expected.output_error);
    CHECK(m.max_error == expected.max_error);
    CHECK(m.cosine == expected.cosine);
  }
}

TEST_CASE("measuring errors can be cancelled") {
  const quantized_weight w{10};
  const auto stopped =
      sinq::measure_error(w.original.view(), w.packed, {}, nullptr, {.progress = [](double) { return false; }});
  CHECK(stopped.error().code == sinq::errc::cancelled);
}

TEST_CASE("accumulators of parts merge to that of the whole") {
  const matrix a = student_t(12, 40, 11), b = student_t(12, 40, 12);
  sinq::error_accumulator whole, upper, lower;
  for (std::size_t i = 0; i < 12; ++i) {
    whole.add_row(a.view().row(i), b.view().row(i));
    (i < 5 ? upper : lower).add_row(a.view().row(i), b.view().row(i));
  }
  upper.merge(lower);
  CHECK(upper.result().mse == Approx(whole.result().mse).epsilon(1e-12));
  CHECK(upper.result().max_error == whole.result().max_error);
  CHECK(upper.result().cosine == Approx(whole.result().cosine).epsilon(1e-12));
}
