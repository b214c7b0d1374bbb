#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/oracle.hpp"
#include "support/random_matrices.hpp"

#include <sinq/math/stats.hpp>

using namespace sinq_test;

namespace {

/// Entries of a vector that lives until the end of the full expression.
std::span<const double> all(const oracle::VectorXd& v) {
  return {v.data(), static_cast<std::size_t>(v.size())};
}

/// Standard deviations from sums in float.
sinq::row_col_stddev float_stddev(const matrix& m) {
  sinq::row_col_stddev sigma{std::vector<double>(m.rows), std::vector<double>(m.cols)};
  const std::vector<float> row(m.rows, 1.0f), col(m.cols, 1.0f);
  sinq::stats_workspace workspace;
  sinq::scaled_stddev<float, float>(m.view(), col, row, sigma.row, sigma.col, workspace);
  return sigma;
}

} // namespace

TEST_CASE("standard deviations agree with the oracle on every kind of matrix") {
  for (const auto& [rows, cols] : ragged_shapes)
    for (const named_matrix& kind : every_kind(rows, cols, 7)) {
      INFO(kind.name << " " << rows << " x " << cols);
      const auto sigma = sinq::stddev(kind.m.view());
      const oracle::MatrixXd exact = oracle::to_double(kind.m.view());
      // One pass keeps 1e-8 where the variance exceeds 2^-24 of the mean square; two passes keep 1e-8 below.
      CHECK(close_each(std::span<const double>{sigma.row}, all(oracle::row_stddev(exact)), 1e-7));
      CHECK(close_each(std::span<const double>{sigma.col}, all(oracle::col_stddev(exact)), 1e-7));
      // The bounds of scaled_stddev: the mean of few elements may dwarf their spread.
      const auto coarse = float_stddev(kind.m);
      const double bound = std::min(rows, cols) < 16 ? 2e-5 : 2e-6;
      CHECK(close_each(std::span<const double>{coarse.row}, all(oracle::row_stddev(exact)), bound));
      CHECK(close_each(std::span<const double>{coarse.col}, all(oracle::col_stddev(exact)), bound));
    }
}

TEST_CASE("a mean that dwarfs the spread does not spoil the standard deviation") {
  for (const float offset : {1.0f, 100.0f, 3e4f}) {
    matrix m = gaussian(50, 70, 3, 1.0);
    for (float& value : m.values) value += offset;
    const auto sigma = sinq::stddev(m.view());
    const oracle::MatrixXd exact = oracle::to_double(m.view());
    CHECK(close_each(std::span<const double>{sigma.row}, all(oracle::row_stddev(exact)), 1e-7));
    CHECK(close_each(std::span<const double>{sigma.col}, all(oracle::col_stddev(exact)), 1e-7));
    const auto coarse = float_stddev(m);
    CHECK(close_each(std::span<const double>{coarse.row}, all(oracle::row_stddev(exact)), 2e-6));
    CHECK(close_each(std::span<const double>{coarse.col}, all(oracle::col_stddev(exact)), 2e-6));
  }
  const auto constant = sinq::stddev(matrix{8, 40, 0.1f}.view());
  for (const double sigma : constant.row) CHECK(sigma == 0);
  for (const double sigma : constant.col) CHECK(sigma == 0);
}

TEST_CASE("scaled standard deviations are those of the scaled matrix") {
  const matrix m = student_t(19, 37, 5);
  matrix scaled = m;
  std::vector<float> row(19), col(37);
  random_source random{9};
  for (float& value : row) value = static_cast<float>(random.uniform() + 0.5);
  for (float& value : col) value = static_cast<float>(random.uniform() + 0.5);
  for (std::size_t i = 0; i < 19; ++i)
    for (std::size_t j = 0; j < 37; ++j) scaled(i, j) = (m(i, j) * col[j]) * row[i];
  std::vector<double> row_std(19), col_std(37);
  sinq::stats_workspace workspace;
  sinq::scaled_stddev<float>(m.view(), col, row, row_std, col_std, workspace);
  const auto expected = sinq::stddev(scaled.view());
  CHECK(row_std == expected.row);
  CHECK(col_std == expected.col);
}

TEST_CASE("imbalance agrees with the oracle, and sides of length 1 do not count") {
  for (const auto& [rows, cols] : ragged_shapes) {
    const matrix m = with_outliers(rows, cols, 11);
    CHECK(sinq::imbalance(m.view()) == Approx(oracle::imbalance(oracle::to_double(m.view()))).epsilon(1e-6));
  }
  CHECK(sinq::imbalance(matrix{1, 1, 3.0f}.view()) == 1.0f);
}

TEST_CASE("kurtosis of known matrices") {
  CHECK(sinq::kurtosis(matrix{4, 4}.view()) == 0.0);
  CHECK(sinq::kurtosis(matrix{4, 4, -2.0f}.view()) == Approx(1.0));
  CHECK(sinq::kurtosis(gaussian(300, 300, 1).view()) == Approx(3.0).epsilon(0.05));
  matrix one{10, 10};
  one(3, 3) = 5.0f;
  CHECK(sinq::kurtosis(one.view()) == Approx(100.0));
}
