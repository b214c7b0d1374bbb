#include "support/catch.hpp"
#include "support/oracle.hpp"
#include "support/random_matrices.hpp"

#include <cmath>

using namespace sinq_test;
using oracle::MatrixXd;

TEST_CASE("the oracle's standard deviations, by hand") {
  MatrixXd a(2, 3);
  a << 1, 2, 3, 0, 0, 6;
  CHECK(oracle::row_stddev(a)(0) == Approx(1.0));
  CHECK(oracle::row_stddev(a)(1) == Approx(std::sqrt(12.0)));
  CHECK(oracle::col_stddev(a)(0) == Approx(std::sqrt(0.5)));
  CHECK(oracle::col_stddev(a)(2) == Approx(std::sqrt(4.5)));
  CHECK(oracle::imbalance(a) == Approx(std::sqrt(12.0) / std::sqrt(0.5)));
  CHECK(oracle::row_stddev(a.leftCols(1)).isZero());
  CHECK(oracle::col_stddev(a.topRows(1)).isZero());
  CHECK(oracle::imbalance(a.topLeftCorner(1, 1)) == 1.0);
}

TEST_CASE("the oracle's Sinkhorn gives the matrix back and never raises the imbalance") {
  for (const auto& [name, m] : every_kind(48, 64, 5)) {
    CAPTURE(name);
    const MatrixXd w = oracle::to_double(m.view());
    const oracle::sinkhorn_result r = oracle::sinkhorn(w);
    CHECK(r.imbalance_after <= r.imbalance_before);
    CHECK(r.imbalance_after == Approx(oracle::imbalance(r.matrix)));
    CHECK((r.row_scale.array() > 0).all());
    CHECK((r.col_scale.array() > 0).all());
    const MatrixXd back = r.row_scale.asDiagonal() * r.matrix * r.col_scale.asDiagonal();
    CHECK((back - w).cwiseAbs().maxCoeff() <= 1e-14 * w.cwiseAbs().maxCoeff());
  }
}

TEST_CASE("the oracle's Sinkhorn balances outliers away") {
  const matrix m = with_outliers(64, 64, 3);
  const oracle::sinkhorn_result r = oracle::sinkhorn(oracle::to_double(m.view()));
  CHECK(r.imbalance_before > 5.0);
  CHECK(r.imbalance_after < 0.5 * r.imbalance_before);
}

TEST_CASE("the oracle's rounding, by hand") {
  MatrixXd w(1, 5);
  w << -1.0, 0.0, 0.5, 2.0, 7.0;
  const oracle::rtn_result r = oracle::rtn(w, 2, 4);
  CHECK(r.scale(0, 0) == 1.0);
  CHECK(r.zero(0, 0) == 1.0);
  CHECK(r.codes.row(0).head(4) == Eigen::RowVector4d{0, 1, 2, 3});
  CHECK(r.values.row(0).head(4) == Eigen::RowVector4d{-1, 0, 1, 2});
  CHECK(r.scale(0, 1) == Approx(1e-4 / 3));
}

TEST_CASE("the oracle's rounding stays within half a step of what its grid reaches") {
  const matrix m = gaussian(8, 100, 11);
  const MatrixXd w = oracle::to_double(m.view());
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    const oracle::rtn_result r = oracle::rtn(w, bits, 32);
    for (Eigen::Index i = 0; i < w.rows(); ++i)
      for (Eigen::Index j = 0; j < w.cols(); ++j) {
        const double error = std::fabs(r.values(i, j) - w(i, j));
        // the rounded zero point may push the ends of the range half a step off the grid
        if (error > r.scale(i, j / 32) + 1e-12) FAIL("bits " << bits << " at " << i << ", " << j);
      }
  }
}

TEST_CASE("the oracle's product, by hand") {
  MatrixXd x(1, 2);
  x << 1, 2;
  MatrixXd w(3, 2);
  w << 1, 0, 0, 1, 3, -1;
  CHECK(oracle::matmul(x, w) == Eigen::RowVector3d{1, 2, 1});
}

TEST_CASE("random matrices are the same from run to run") {
  CHECK(gaussian(3, 4, 1).values == gaussian(3, 4, 1).values);
  CHECK(gaussian(3, 4, 1).values != gaussian(3, 4, 2).values);
  random_source random{1};
  CHECK(random.uniform() == Approx(0.13387664401253274).epsilon(1e-15));
}

TEST_CASE("random matrices are what their names say") {
  const matrix g = gaussian(100, 400, 7, 1.0);
  const matrix t = student_t(100, 400, 7, 1.0);
  const auto moments = [](const matrix& m) {
    double sum = 0, square = 0, fourth = 0;
    for (const float value : m.values) {
      const double x = static_cast<double>(value);
      sum += x;
      square += x * x;
      fourth += x * x * x * x;
    }
    const double n = static_cast<double>(m.values.size());
    return std::array{sum / n, square / n, fourth / n / (square / n) / (square / n)};
  };
  CHECK(std::fabs(moments(g)[0]) < 0.02);
  CHECK(moments(g)[1] == Approx(1.0).margin(0.02));
  CHECK(moments(g)[2] == Approx(3.0).margin(0.1));
  CHECK(moments(t)[1] == Approx(5.0 / 3.0).margin(0.06));
  CHECK(moments(t)[2] > 5.0);
  for (const auto& [rows, cols] : ragged_shapes)
    for (const auto& [name, m] : every_kind(rows, cols, 9)) {
      CAPTURE(name, rows, cols);
      CHECK(m.values.size() == rows * cols);
      for (const float value : m.values)
        if (!std::isfinite(value)) FAIL("not finite");
    }
}
