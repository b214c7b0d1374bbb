#include "support/catch.hpp"
#include "support/oracle.hpp"
#include "support/random_matrices.hpp"

#include <sinq/metrics.hpp>
#include <sinq/quant/quantize.hpp>

#include <cmath>
#include <limits>

using namespace sinq_test;

namespace {

sinq::error_metrics measure(const matrix& a, const matrix& b, std::vector<double> weights = {}) {
  sinq::error_accumulator sum{std::move(weights)};
  for (std::size_t i = 0; i < a.rows; ++i) sum.add_row(a.view().row(i), b.view().row(i));
  return sum.result();
}

} // namespace

TEST_CASE("metrics agree with the oracle") {
  const matrix a = student_t(13, 29, 1), b = student_t(13, 29, 2);
  const oracle::MatrixXd x = oracle::to_double(a.view()), y = oracle::to_double(b.view());
  std::vector<double> weights(29);
  random_source random{3};
  for (double& w : weights) w = random.uniform();
  const auto m = measure(a, b, weights);
  CHECK(m.mse == Approx((x - y).squaredNorm() / (13 * 29)));
  CHECK(m.relative_error == Approx((x - y).norm() / x.norm()));
  CHECK(m.max_error == Approx((x - y).cwiseAbs().maxCoeff()));
  CHECK(m.cosine == Approx(x.cwiseProduct(y).sum() / x.norm() / y.norm()));
  CHECK(m.snr_db == Approx(20 * std::log10(x.norm() / (x - y).norm())));
  const auto d = Eigen::Map<const oracle::VectorXd>(weights.data(), 29).cwiseSqrt().asDiagonal();
  CHECK(m.weighted_relative_error == Approx(((x - y) * d).norm() / (x * d).norm()));
  CHECK(m.finite);
  CHECK(measure(a, b).weighted_relative_error == m.relative_error);
}

TEST_CASE("metrics of degenerate matrices") {
  const matrix zero{3, 4}, one{3, 4, 1.0f};
  CHECK(measure(zero, zero).relative_error == 0);
  CHECK(measure(zero, zero).cosine == 1);
  CHECK(std::isinf(measure(one, one).snr_db));
  CHECK(std::isinf(measure(zero, one).relative_error));
  CHECK(measure(zero, one).cosine == 0);
  matrix poisoned = one;
  poisoned(2, 3) = std::numeric_limits<float>::quiet_NaN();
  CHECK_FALSE(measure(one, poisoned).finite);
}

TEST_CASE("column-normalising weights count every column relative to itself") {
  matrix m{2, 3, 1.0f};
  m(0, 1) = m(1, 1) = 10.0f;
  m(0, 2) = m(1, 2) = 0.0f;
  const auto weights = sinq::column_normalizing_weights(m.view());
  CHECK(weights == std::vector<double>{0.5, 0.005, 0.0});
  matrix off = m;
  off(0, 1) += 5.0f; // half of one of the two entries of one of the two columns
  CHECK(measure(m, off, weights).weighted_relative_error == Approx(std::sqrt(0.25 / 2 / 2)));
}

TEST_CASE("the error of a packed matrix is that of its weights") {
  const matrix m = with_outliers(100, 96, 4);
  const auto q = sinq::quantize(m.view());
  REQUIRE(q);
  const auto p = sinq::pack(*q);
  REQUIRE(p);
  matrix w{100, 96};
  sinq::dequantize(*p, w.view());
  const auto expected = measure(m, w, sinq::column_normalizing_weights(m.view()));
  const auto error = sinq::measure_error(m.view(), *p, sinq::column_normalizing_weights(m.view()));
  REQUIRE(error);
  CHECK(error->mse == Approx(expected.mse).epsilon(1e-12));
  CHECK(error->weighted_relative_error == Approx(expected.weighted_relative_error).epsilon(1e-12));
  CHECK(error->max_error == expected.max_error);
  CHECK_FALSE(error->output_error);
  CHECK(sinq::bits_per_weight(*p) == Approx(4 + 16.0 * 2 * 2 / 96 + 16.0 / 100));
  CHECK_FALSE(sinq::measure_error(matrix{100, 95}.view(), *p));
  CHECK_FALSE(sinq::measure_error(m.view(), *p, std::vector<double>(95)));
}
