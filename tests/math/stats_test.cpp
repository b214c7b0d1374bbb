#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/oracle.hpp"
#include "support/random_matrices.hpp"

#include <sinq/math/stats.hpp>
#include <sinq/math/tile_spread.hpp>

using namespace sinq_test;

namespace {

/// Entries of a vector that lives until the end of the full expression.
std::span<const double> all(const oracle::VectorXd& v) {
  return {v.data(), static_cast<std::size_t>(v.size())};
}

/// Standard deviations from sums in float.
sinq::row_col_stddev float_stddev(const matrix& m, std::vector<float> row_factor = {},
                                  std::vector<float> col_factor = {}) {
  sinq::detail::column_tile tile;
  tile.assign(m.view());
  row_factor.resize(sinq::detail::column_tile::whole(m.rows), 1.0f);
  col_factor.resize(m.cols, 1.0f);
  sinq::detail::tile_spread spread;
  spread.measure(tile, row_factor, col_factor);
  return {{spread.row().begin(), spread.row().end()}, {spread.col().begin(), spread.col().end()}};
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
      // The bounds of tile_spread: the mean of few elements may dwarf their spread. It gives floats, which have no
      // precision where they are denormal; the iteration never looks at such tiles as they are.
      if (kind.name == "denormal") continue;
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
  const auto coarse = float_stddev(m, row, col);
  CHECK(close_each(std::span<const double>{coarse.row}, std::span<const double>{expected.row}, 2e-6));
  CHECK(close_each(std::span<const double>{coarse.col}, std::span<const double>{expected.col}, 2e-6));
}

TEST_CASE("a tile in columns holds the matrix, and knows its largest magnitude") {
  for (const auto& [rows, cols] : ragged_shapes) {
    matrix m = gaussian(rows, cols, 3);
    m(rows - 1, cols - 1) = -1e30f;
    sinq::detail::column_tile tile;
    tile.assign(m.view());
    CHECK(tile.largest() == 1e30f);
    for (std::size_t i = 0; i < rows; ++i)
      for (std::size_t j = 0; j < cols; ++j) REQUIRE(tile(i, j) == m(i, j));
    m(rows - 1, 0) = std::numeric_limits<float>::quiet_NaN();
    tile.assign(m.view());
    CHECK(tile.largest() == std::numeric_limits<float>::infinity());
  }
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
