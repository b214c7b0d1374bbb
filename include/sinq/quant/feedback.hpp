#pragma once

#include "refine.hpp"
#include "refine_options.hpp"

#include <Eigen/Cholesky>

#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

namespace sinq {

namespace detail {

using square_matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// E[x x^T] of the inputs that the codes' columns meet, R H R, 0 x 0 if they are not known.
template <class = void>
[[nodiscard]] square_matrix rotated_hessian(const input_moments& inputs, std::size_t rotation) {
  square_matrix h = inputs.correlations();
  for (int side = 0; side < 2 && rotation != 0; ++side) {
    for (Eigen::Index j = 0; j < h.rows(); ++j)
      hadamard_rotate(std::span{h.row(j).data(), static_cast<std::size_t>(h.cols())}, rotation);
    h = h.transpose().eval();
  }
  return h;
}

/// What error feedback does to each row: the order of columns and U, upper triangular, with H^-1 = U^T U in that order.
struct feedback_plan {
  std::vector<std::size_t> order;
  input_moments::row_major upper;
};

/// With L L^T the Cholesky factors of the damped H in the reverse order, U is L^-1 turned around: one factorisation and
/// one triangular inverse instead of two factorisations and an inverse.
template <class = void>
[[nodiscard]] result<feedback_plan> plan_feedback(const square_matrix& h, const feedback_options& o) {
  if (!(o.damping > 0 && is_finite(o.damping)) || o.block == 0)
    return make_error(errc::invalid_argument, "feedback: damping ", o.damping, " in blocks of ", o.block,
                      ", expected both above 0");
  const Eigen::Index cols = h.cols();
  feedback_plan plan;
  plan.order.resize(static_cast<std::size_t>(cols));
  std::iota(plan.order.begin(), plan.order.end(), std::size_t{0});
  const auto energy = [&](std::size_t j) { return h(static_cast<Eigen::Index>(j), static_cast<Eigen::Index>(j)); };
  if (o.act_order)
    std::stable_sort(plan.order.begin(), plan.order.end(),
                     [&](std::size_t a, std::size_t b) { return energy(a) > energy(b); });
  const double mean = h.diagonal().mean();
  const double damping = o.damping * (mean > 0 ? mean : 1.0);
  Eigen::MatrixXd turned(cols, cols);
  for (Eigen::Index a = 0; a < cols; ++a)
    for (Eigen::Index b = 0; b < cols; ++b)
      turned(cols - 1 - a, cols - 1 - b) = h(static_cast<Eigen::Index>(plan.order[static_cast<std::size_t>(a)]),
                                             static_cast<Eigen::Index>(plan.order[static_cast<std::size_t>(b)])) +
                                           (a == b ? damping : 0.0);
  const Eigen::LLT<Eigen::MatrixXd> factor{turned};
  if (factor.info() != Eigen::Success)
    return make_error(errc::invalid_argument, "feedback: the hessian of ", cols, " columns, damped by ", damping,
                      ", is not positive definite");
  const Eigen::MatrixXd inverse = factor.matrixL().solve(Eigen::MatrixXd::Identity(cols, cols));
  plan.upper.resize(cols, cols);
  for (Eigen::Index a = 0; a < cols; ++a)
    for (Eigen::Index b = 0; b < cols; ++b)
      plan.upper(a, b) = b < a ? 0.0f : static_cast<float>(inverse(cols - 1 - a, cols - 1 - b));
  return plan;
}

/// Rounds some rows column by column; what a column loses is taken over by those after it.
template <class Grid>
class row_feedback {
public:
  using rows_type = input_moments::row_major;

  row_feedback(quantized_matrix& q, const Grid& grid, const feedback_plan& plan, std::size_t block)
      : q_{q}, grid_{grid}, plan_{plan}, block_{static_cast<Eigen::Index>(block)} {}

  /// @param rows  [count x K] the weights, in the order of the plan; used up
  void operator()(std::size_t row_begin, rows_type& rows) const {
    const Eigen::Index cols = rows.cols();
    rows_type errors(rows.rows(), block_);
    for (Eigen::Index begin = 0; begin < cols; begin += block_) {
      const Eigen::Index count = std::min(block_, cols - begin);
      for (Eigen::Index i = 0; i < rows.rows(); ++i)
        round_block(row_begin + static_cast<std::size_t>(i), rows.row(i).data(), begin, count, errors.row(i).data());
      const Eigen::Index rest = cols - begin - count;
      if (rest > 0)
        rows.rightCols(rest).noalias() -= errors.leftCols(count) * plan_.upper.block(begin, begin + count, count, rest);
    }
  }

private:
  void round_block(std::size_t i, float* row, Eigen::Index begin, Eigen::Index count, float* errors) const {
    const matrix_format& f = q_.format;
    for (Eigen::Index a = begin; a < begin + count; ++a) {
      const std::size_t j = plan_.order[static_cast<std::size_t>(a)];
      const std::size_t g = j / f.group_size;
      const float s = q_.scale[i * f.groups() + g];
      const float z = q_.zero_at(i, g);
      const float t = q_.col_scale_at(i, j);
      const float step = s * t;
      const float position = step == 0 ? z : row[a] / step + z;
      q_.codes[i * f.cols + j] = grid_.code(position);
      const float* const u = plan_.upper.row(a).data();
      const float error = (row[a] - (s * (grid_.nearest(position) - z)) * t) / u[a];
      errors[a - begin] = error;
      for (Eigen::Index b = a + 1; b < begin + count; ++b) row[b] -= error * u[b];
    }
  }

  quantized_matrix& q_;
  const Grid& grid_;
  const feedback_plan& plan_;
  Eigen::Index block_;
};

template <class Grid>
[[nodiscard]] result<void> feed_back_rows(const weight_view& w, const Grid& grid, const feedback_plan& plan,
                                          std::size_t block, quantized_matrix& q, const run_options& run) {
  const matrix_format& f = q.format;
  const row_feedback<Grid> round{q, grid, plan, block};
  const auto rows = [&](std::size_t begin, std::size_t end) -> result<void> {
    input_moments::row_major values(static_cast<Eigen::Index>(end - begin), static_cast<Eigen::Index>(f.cols));
    load_rows(w, f, begin, {values.data(), end - begin, f.cols});
    std::vector<float> row(f.cols);
    for (std::size_t i = 0; i < end - begin; ++i) {
      float* const to = values.row(static_cast<Eigen::Index>(i)).data();
      std::copy_n(to, f.cols, row.data());
      for (std::size_t a = 0; a < f.cols; ++a) to[a] = row[plan.order[a]];
    }
    round(begin, values);
    return {};
  };
  constexpr std::size_t rows_at_once = 64;
  return parallel_for(run.on(), f.rows, rows_at_once, rows, run.progress);
}

/// What feed_back does. A template, so that it can be compiled in one place.
template <class = void>
[[nodiscard]] result<void> run_feedback(const weight_view& w, quantized_matrix& q, const input_moments& inputs,
                                        const feedback_options& options, const run_options& run) {
  const matrix_format& f = q.format;
  if (w.rows() != f.rows || w.cols() != f.cols)
    return make_error(errc::invalid_argument, "feedback: the weights are ", w.rows(), " x ", w.cols(),
                      ", the quantized matrix ", f.rows, " x ", f.cols);
  if (auto ok = inputs.check(f.cols); !ok) return ok;
  const square_matrix hessian = rotated_hessian<>(inputs, f.rotation);
  if (hessian.size() == 0)
    return make_error(errc::invalid_argument,
                      "feedback needs a hessian or a sample of inputs, and the moments have neither");
  const auto plan = plan_feedback<>(hessian, options);
  if (!plan) return plan.error();
  if (f.grid == grid::uniform)
    return feed_back_rows(w, uniform_grid{static_cast<float>(max_code(f.bits))}, *plan, options.block, q, run);
  return feed_back_rows(w, codebook_grid{q.levels()}, *plan, options.block, q, run);
}

#ifdef SINQ_SEPARATE_COMPILATION
extern template result<void> run_feedback<void>(const weight_view&, quantized_matrix&, const input_moments&,
                                                const feedback_options&, const run_options&);
#endif

} // namespace detail

/// Chooses the codes of a quantized matrix anew by error feedback, with its scales, zero points and t as they are:
/// columns are rounded one after another, and each carries its error into those that are still to come. minimise ||X (W
/// - W')^T||^2 greedily:  w_b -= (w_a - w'_a) / U_aa * U_ab for all b after a,  H^-1 = U^T U
/// @param w       [N x K], the weights that q was made from
/// @param inputs  their hessian E[x x^T], or a sample of inputs
/// @errors        errc::invalid_argument (shapes, no hessian, one that is not positive definite when damped),
///                errc::cancelled
/// Numerics: U in f64, rounded to f32; corrections in f32 by Eigen, so that codes at ties may differ between machines,
/// and not between executors. Cost O(K^3 + N K^2). Source: Frantar et al., GPTQ, arXiv 2210.17323, Algorithm 1, with
/// the scales of all groups fixed beforehand ("static groups").
[[nodiscard]] inline result<void> feed_back(const weight_view& w, quantized_matrix& q, const input_moments& inputs,
                                            const feedback_options& options = {}, const run_options& run = {}) {
  return detail::run_feedback<>(w, q, inputs, options, run);
}

} // namespace sinq
