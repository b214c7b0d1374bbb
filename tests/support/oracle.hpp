#pragma once

/// What the library computes, written down once more in double and as plainly as the formulas stand on paper.

#include <sinq/core/matrix_view.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <limits>

namespace sinq_test::oracle {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

[[nodiscard]] inline MatrixXd to_double(sinq::matrix_view<const float> w) {
  return w.eigen().cast<double>();
}

/// Standard deviation of each row, ddof = 1; 0 for a single column.
[[nodiscard]] inline VectorXd row_stddev(const MatrixXd& a) {
  if (a.cols() < 2) return VectorXd::Zero(a.rows());
  const MatrixXd centred = a.colwise() - a.rowwise().mean();
  return (centred.rowwise().squaredNorm() / static_cast<double>(a.cols() - 1)).cwiseSqrt();
}

/// Standard deviation of each column, ddof = 1; 0 for a single row.
[[nodiscard]] inline VectorXd col_stddev(const MatrixXd& a) {
  return row_stddev(a.transpose());
}

/// max / max(1e-12, min) over the standard deviations of all rows and columns that have one; 1 for a single element.
[[nodiscard]] inline double imbalance(const MatrixXd& a) {
  double most = 0.0;
  double least = std::numeric_limits<double>::infinity();
  if (a.cols() > 1) {
    most = std::max(most, row_stddev(a).maxCoeff());
    least = std::min(least, row_stddev(a).minCoeff());
  }
  if (a.rows() > 1) {
    most = std::max(most, col_stddev(a).maxCoeff());
    least = std::min(least, col_stddev(a).minCoeff());
  }
  return a.size() > 1 ? most / std::max(1e-12, least) : 1.0;
}

struct sinkhorn_result {
  MatrixXd matrix;
  VectorXd row_scale;
  VectorXd col_scale;
  double imbalance_before = 1.0;
  double imbalance_after = 1.0;
};

/// Sinkhorn normalisation of one tile with the reference constants, in logarithms as the reference code has it.
/// Source: arXiv 2509.22944, Algorithm 1; huawei-csl/SINQ sinq/sinkhorn.py (sinkhorn_log).
[[nodiscard]] inline sinkhorn_result sinkhorn(const MatrixXd& m, int iterations = 16) {
  const auto clamp_sigma = [](const VectorXd& sigma) -> VectorXd { return sigma.cwiseMax(1e-3).cwiseMin(1e3); };
  double tau = 1e3;
  if (m.cols() > 1) tau = std::min(tau, clamp_sigma(row_stddev(m)).minCoeff());
  if (m.rows() > 1) tau = std::min(tau, clamp_sigma(col_stddev(m)).minCoeff());
  tau += 1e-6;
  const auto step = [&](const VectorXd& log_scale, const VectorXd& sigma) -> VectorXd {
    const VectorXd ratio = (clamp_sigma(sigma) / tau).cwiseMax(0.7).cwiseMin(2.0);
    return (log_scale.array() + ratio.array().log()).max(-0.3).min(10.0);
  };

  VectorXd u = VectorXd::Zero(m.rows());
  VectorXd v = VectorXd::Zero(m.cols());
  sinkhorn_result best{m, VectorXd::Ones(m.rows()), VectorXd::Ones(m.cols()), imbalance(m), imbalance(m)};
  for (int k = 0; k < iterations; ++k) {
    const VectorXd row_scale = u.array().exp();
    const VectorXd col_scale = v.array().exp();
    const MatrixXd a = row_scale.cwiseInverse().asDiagonal() * m * col_scale.cwiseInverse().asDiagonal();
    const double current = imbalance(a);
    if (current > best.imbalance_after) break;
    best = {a, row_scale, col_scale, best.imbalance_before, current};
    if (m.rows() > 1) v = step(v, col_stddev(a));
    if (m.cols() > 1) u = step(u, row_stddev(a));
  }
  return best;
}

/// The alternating rule on one tile: each side's variance is at least a sixteenth of its mean square; t from 1 to 2^15.
[[nodiscard]] inline sinkhorn_result alternating(const MatrixXd& m, int passes = 16) {
  sinkhorn_result out{m, VectorXd::Ones(m.rows()), VectorXd::Ones(m.cols()), imbalance(m), imbalance(m)};
  const auto spread = [](const MatrixXd& lines) -> VectorXd { // of each row
    VectorXd found(lines.rows());
    for (Index i = 0; i < lines.rows(); ++i) {
      const double square = lines.row(i).squaredNorm(), mean = lines.row(i).mean();
      const double variance = square - static_cast<double>(lines.cols()) * mean * mean;
      found(i) = std::sqrt(std::max(variance, square / 16) / static_cast<double>(lines.cols() - 1));
    }
    return found;
  };
  bool uneven = m.cols() > 1;
  for (int k = 0; uneven && k < passes; ++k) {
    out.row_scale = spread(m * out.col_scale.cwiseInverse().asDiagonal());
    out.row_scale = (out.row_scale.array() > 0).select(out.row_scale, 1.0);
    if (m.rows() == 1) break;
    const VectorXd t = spread((out.row_scale.cwiseInverse().asDiagonal() * m).transpose());
    const VectorXd change = t.cwiseQuotient(out.col_scale);
    const double least = (t.array() > 0).select(change, change.maxCoeff()).minCoeff();
    uneven = change.maxCoeff() > 1.5 * least;
    if (t.maxCoeff() == 0) break;
    out.col_scale = t.cwiseMax(std::ldexp(t.maxCoeff(), -14));
    out.col_scale /= std::exp2(std::floor(std::log2(out.col_scale.minCoeff())));
  }
  out.matrix = out.row_scale.cwiseInverse().asDiagonal() * m * out.col_scale.cwiseInverse().asDiagonal();
  out.imbalance_after = imbalance(out.matrix);
  return out;
}

struct rtn_result {
  MatrixXd codes;  ///< [N x K], whole numbers
  MatrixXd scale;  ///< [N x G]
  MatrixXd zero;   ///< [N x G], whole numbers
  MatrixXd values; ///< [N x K], scale * (code - zero)
};

/// Round to nearest, asymmetric with a rounded zero point, over groups of `group_size` columns of each row:
/// s = max(hi - lo, least_range) / (2^b - 1), z = -round(lo / s), q = clamp(round(w / s + z)), half to even.
[[nodiscard]] inline rtn_result rtn(const MatrixXd& w, int bits, Index group_size, double least_range = 1e-4) {
  const double levels = std::ldexp(1.0, bits) - 1.0;
  const Index groups = (w.cols() + group_size - 1) / group_size;
  rtn_result out{w, MatrixXd(w.rows(), groups), MatrixXd(w.rows(), groups), w};
  for (Index i = 0; i < w.rows(); ++i)
    for (Index g = 0; g < groups; ++g) {
      const Index begin = g * group_size;
      const Index cols = std::min(group_size, w.cols() - begin);
      const auto group = w.row(i).segment(begin, cols);
      const double scale = std::max(group.maxCoeff() - group.minCoeff(), least_range) / levels;
      const double zero = -std::nearbyint(group.minCoeff() / scale);
      out.scale(i, g) = scale;
      out.zero(i, g) = zero;
      for (Index j = begin; j < begin + cols; ++j) {
        out.codes(i, j) = std::clamp(std::nearbyint(w(i, j) / scale + zero), 0.0, levels);
        out.values(i, j) = scale * (out.codes(i, j) - zero);
      }
    }
  return out;
}

/// y = x . W^T, [M x N] from x [M x K] and W [N x K].
[[nodiscard]] inline MatrixXd matmul(const MatrixXd& x, const MatrixXd& w) {
  return x * w.transpose();
}

} // namespace sinq_test::oracle
