#pragma once

#include "../math/sinkhorn.hpp"
#include "output_error.hpp"
#include "rtn.hpp"
#include "tiles.hpp"

#include <optional>
#include <utility>

namespace sinq {

/// Options of the activation-aware search.
struct awq_options {
  int steps = 20; ///< exponents that are tried: 0, 1 / steps, .. below 1
  output_loss loss = output_loss::squared;
  std::optional<sinkhorn_options> balance{}; ///< A-SINQ: inside the Sinkhorn normalisation; without it, plain AWQ
};

/// Column factors that protect the columns which meet large inputs.
/// a_j = max(b_j / sqrt(max b min b)),  b_j = max(max(x_j^alpha, 1e-4) / (w_j^(1 - alpha) + 1e-4), 1e-4)
/// @param mean_abs_x  [K] mean over tokens of |x_j|, @param mean_abs_w [K] mean over rows of |W_ij|
/// Source: huawei-csl/SINQ sinq/awq.py (compute_awq_scale).
[[nodiscard]] inline std::vector<float> awq_factors(std::span<const float> mean_abs_x,
                                                    std::span<const float> mean_abs_w, double alpha) {
  SINQ_ASSERT(mean_abs_x.size() == mean_abs_w.size() && !mean_abs_x.empty());
  std::vector<double> factor(mean_abs_x.size());
  for (std::size_t j = 0; j < factor.size(); ++j) {
    const double input = std::max(std::pow(static_cast<double>(mean_abs_x[j]), alpha), 1e-4);
    factor[j] = std::max(input / (std::pow(static_cast<double>(mean_abs_w[j]), 1 - alpha) + 1e-4), 1e-4);
  }
  const auto [least, most] = std::minmax_element(factor.begin(), factor.end());
  const double middle = std::sqrt(*least) * std::sqrt(*most);
  std::vector<float> out(factor.size());
  for (std::size_t j = 0; j < out.size(); ++j) out[j] = static_cast<float>(factor[j] / middle);
  return out;
}

/// Activation-aware quantization: columns times a before rounding, and over a after; of `steps` choices of a the one
/// whose outputs are nearest to those of W.
/// AWQ:    W ~ rtn(W diag(a)) diag(a)^-1
/// A-SINQ: W ~ diag(row) rtn(W_hat diag(a)) diag(col / a), W_hat = diag(row)^-1 W diag(col)^-1 tile by tile
/// a = awq_factors of alpha = 0, 1 / steps, .., the first of those with the least loss E |x (W' - W)^T|^2 or ^1, from x
/// and W; by the alternating rule from what remains for them to do, x t and W_hat, so that alpha = 0 is about SINQ
/// Factors so large that a weight overflows are passed over; if none is left, a is 1.
/// Numerics: weights and factors in f32; losses as in output_error, summed over rows in their order, so that the result
/// does not depend on the number of threads. Cost: steps N K min(T, K).
/// Source: huawei-csl/SINQ sinq/awq.py (compute_awq_scale), sinq/dual_shift.py (quantize_dual_scale_shift).
class awq_quantizer {
public:
  explicit awq_quantizer(const rtn& inner, const awq_options& options = {}) : inner_{inner}, options_{options} {}

  [[nodiscard]] const awq_options& options() const { return options_; }

  /// @param w       [N x K] of any floating type, finite
  /// @param format  of the result, with a t; its group_size is that of the inner quantizer
  /// @param inputs  checked; mean_abs or inputs, and what output_error needs
  /// @errors        errc::empty_matrix, errc::non_finite (the first row and column), errc::invalid_argument (also:
  ///                names the part of the inputs that is missing), errc::not_representable (weights near the
  ///                largest float), errc::cancelled
  [[nodiscard]] result<quantized_matrix> operator()(const weight_view& w, const matrix_format& format,
                                                    const input_moments& inputs, const run_options& run = {}) const {
    if (result<void> ok = check_quantizable(w, format.group_size); !ok) return ok.error();
    if (result<void> ok = check(inputs); !ok) return ok.error();
    work job{w, format, run};
    if (result<void> ok = balance(job); !ok) return ok.error();
    if (result<void> ok = search(job, inputs.magnitudes(), inputs); !ok) return ok.error();
    return finish(job);
  }

private:
  struct work {
    const weight_view& w;
    const matrix_format& format;
    const run_options& run;
    std::vector<float> row_scale{}; ///< [G x N] of Sinkhorn, or 1
    std::vector<float> col_scale{}; ///< [row_tiles x K] of Sinkhorn, or 1
    std::vector<double> col_sum{};  ///< [row_tiles x K] sums of |W_ij|
    std::vector<float> factor{};    ///< [K] the a that was found
  };

  /// Scratch of a task.
  struct scratch {
    std::vector<float> weights, normal, error;
    std::vector<std::uint8_t> codes;
    explicit scratch(std::size_t rows, std::size_t cols)
        : weights(rows * cols), normal(cols), error(rows * cols), codes(cols) {}
  };

  static constexpr std::size_t rows_at_once = 8;

  [[nodiscard]] result<void> check(const input_moments& inputs) const {
    if (options_.steps < 1)
      return make_error(errc::invalid_argument, "awq: steps is ", options_.steps, ", expected >= 1");
    if (inputs.mean_abs.empty() && inputs.inputs.rows() == 0)
      return make_error(
          errc::invalid_argument,
          "the activation-aware search needs mean_abs, E|x_j| [K], or inputs, a sample [tokens x K] of x");
    if (const std::string_view part = output_error::missing(inputs, options_.loss); !part.empty())
      return make_error(errc::invalid_argument, "the activation-aware search needs ", part);
    if (options_.balance) return sinq::check(*options_.balance);
    return {};
  }

  /// Sinkhorn scales and sums of |W| of every tile.
  [[nodiscard]] result<void> balance(work& job) const {
    const std::size_t cols = job.w.cols();
    job.row_scale.assign(job.format.groups() * job.w.rows(), 1.0f);
    job.col_scale.assign(job.format.row_tiles() * cols, 1.0f);
    job.col_sum.assign(job.col_scale.size(), 0.0);
    const auto one_tile = [&](std::size_t n, std::size_t) -> result<void> {
      const std::size_t tile = n % job.format.row_tiles();
      const std::size_t g = n / job.format.row_tiles();
      const std::size_t i0 = tile * job.format.tile_height();
      const std::size_t rows = std::min(job.format.tile_height(), job.w.rows() - i0);
      const std::size_t j0 = g * job.format.group_size;
      const std::size_t width = job.format.group_cols(g);
      std::vector<float> values(rows * width);
      const matrix_view<float> block{values.data(), rows, width};
      if (!detail::load_finite(job.w, i0, j0, block)) return make_error(errc::non_finite, "non-finite weight");
      const std::span<float> row_scale = std::span{job.row_scale}.subspan(g * job.w.rows() + i0, rows);
      const std::span<float> col_scale = std::span{job.col_scale}.subspan(tile * cols + j0, width);
      sinkhorn_workspace<float> workspace;
      if (options_.balance) normalizer().find_scales(block, row_scale, col_scale, workspace);
      if (alternates()) sinkhorn_normalizer<float>::divide<float>(block, row_scale, col_scale, block);
      double* const sum = job.col_sum.data() + tile * cols + j0;
      for (std::size_t n_weight = 0; n_weight < values.size(); ++n_weight)
        sum[n_weight % width] += static_cast<double>(std::fabs(values[n_weight]));
      return {};
    };
    result<void> done = parallel_for(job.run.on(), job.format.row_tiles() * job.format.groups(), 1, one_tile,
                                     part_of(job.run.progress, 0.0, 0.05));
    if (!done && done.error().code == errc::non_finite) return detail::non_finite_weight(job.w);
    return done;
  }

  [[nodiscard]] sinkhorn_normalizer<float> normalizer() const { return {*options_.balance}; }
  [[nodiscard]] bool alternates() const { return options_.balance && normalizer().alternates(); }

  /// Finds the factors of least loss.
  [[nodiscard]] result<void> search(work& job, std::vector<float> mean_abs_x, const input_moments& inputs) const {
    const std::size_t rows = job.w.rows();
    const std::size_t cols = job.w.cols();
    std::vector<float> mean_abs_w(cols);
    for (std::size_t j = 0; j < cols; ++j) {
      double sum = 0;
      for (std::size_t n = j; n < job.col_sum.size(); n += cols) sum += job.col_sum[n];
      mean_abs_w[j] = static_cast<float>(sum / static_cast<double>(rows));
    }
    for (std::size_t j = 0; j < cols && alternates(); ++j) {
      double t = 0;
      for (std::size_t n = j; n < job.col_scale.size(); n += cols) t += static_cast<double>(job.col_scale[n]);
      mean_abs_x[j] *= static_cast<float>(t / static_cast<double>(job.format.row_tiles()));
    }
    std::vector<std::vector<float>> factors;
    factors.reserve(static_cast<std::size_t>(std::max(0, options_.steps)));
    for (int k = 0; k < options_.steps; ++k)
      factors.push_back(awq_factors(mean_abs_x, mean_abs_w, static_cast<double>(k) / options_.steps));
    const output_error measure{inputs, options_.loss};
    std::vector<double> loss(factors.size() * rows);
    const auto some_rows = [&](std::size_t begin, std::size_t end) -> result<void> {
      scratch s{end - begin, cols};
      for (std::size_t i = begin; i < end; ++i)
        job.w.load(i, 0, std::span{s.weights}.subspan((i - begin) * cols, cols));
      for (std::size_t k = 0; k < factors.size(); ++k) {
        for (std::size_t i = begin; i < end; ++i) row_error(job, i, i - begin, factors[k], s);
        measure({s.error.data(), end - begin, cols}, std::span{loss}.subspan(k * rows + begin, end - begin));
      }
      return {};
    };
    result<void> done =
        parallel_for(job.run.on(), rows, rows_at_once, some_rows, part_of(job.run.progress, 0.05, 0.95));
    if (!done) return done;
    job.factor.assign(cols, 1.0f);
    double best = std::numeric_limits<double>::infinity();
    for (std::size_t k = 0; k < factors.size(); ++k) {
      double sum = 0;
      for (std::size_t i = 0; i < rows; ++i) sum += loss[k * rows + i];
      if (!(sum < best)) continue;
      best = sum;
      job.factor = factors[k];
    }
    return {};
  }

  /// Calls each(g, first column, scale and zero point) for the quantized groups of row i, whose codes are then in `s`;
  /// false where a weight overflows.
  template <class Each>
  [[nodiscard]] bool quantize_row(const work& job, std::size_t i, std::span<const float> row,
                                  const std::vector<float>& factor, scratch& s, Each&& each) const {
    const float* const col = job.col_scale.data() + job.format.row_tile(i) * row.size();
    for (std::size_t g = 0; g < job.format.groups(); ++g) {
      const std::size_t begin = g * job.format.group_size;
      const std::size_t count = job.format.group_cols(g);
      const float row_scale = job.row_scale[g * job.w.rows() + i];
      bool finite = true;
      for (std::size_t j = begin; j < begin + count; ++j) {
        s.normal[j] = ((row[j] / col[j]) / row_scale) * factor[j];
        finite &= is_finite(s.normal[j]);
      }
      if (!finite) return false;
      each(g, begin, inner_.group(std::span{s.normal}.subspan(begin, count), std::span{s.codes}.subspan(begin, count)));
    }
    return true;
  }

  /// W' - W of row i, to row `to` of the scratch; infinite where a weight overflows.
  void row_error(const work& job, std::size_t i, std::size_t to, const std::vector<float>& factor, scratch& s) const {
    const std::size_t cols = job.w.cols();
    const std::span<const float> row = std::span{s.weights}.subspan(to * cols, cols);
    float* const error = s.error.data() + to * cols;
    const float* const col = job.col_scale.data() + job.format.row_tile(i) * cols;
    const bool finite =
        quantize_row(job, i, row, factor, s, [&](std::size_t g, std::size_t begin, const group_params& fit) {
          const float row_scale = job.row_scale[g * job.w.rows() + i];
          for (std::size_t j = begin; j < begin + job.format.group_cols(g); ++j) {
            const float normal = fit.scale * (static_cast<float>(s.codes[j]) - fit.zero);
            const float half_way = normal * (col[j] / factor[j]);
            const double back = static_cast<double>(half_way) * static_cast<double>(row_scale); // exact
            error[j] = static_cast<float>(back - static_cast<double>(row[j]));
          }
        });
    if (!finite) std::fill_n(error, cols, std::numeric_limits<float>::infinity());
  }

  [[nodiscard]] result<quantized_matrix> finish(const work& job) const {
    quantized_matrix q = quantized_matrix::allocate(job.format, "awq");
    const std::size_t cols = job.w.cols();
    for (std::size_t n = 0; n < q.col_scale.size(); ++n) q.col_scale[n] = job.col_scale[n] / job.factor[n % cols];
    const auto some_rows = [&](std::size_t begin, std::size_t end) -> result<void> {
      scratch s{1, cols};
      for (std::size_t i = begin; i < end; ++i) {
        job.w.load(i, 0, s.weights);
        const auto keep = [&](std::size_t g, std::size_t, const group_params& fit) {
          q.scale[i * job.format.groups() + g] = fit.scale * job.row_scale[g * job.w.rows() + i];
          if (job.format.has_zero) q.zero[i * job.format.groups() + g] = fit.zero;
        };
        if (!quantize_row(job, i, s.weights, job.factor, s, keep))
          return make_error(errc::not_representable, "row ", i, " overflows when it is normalised");
        std::copy(s.codes.begin(), s.codes.end(), q.codes.begin() + static_cast<std::ptrdiff_t>(i * cols));
      }
      return {};
    };
    result<void> done =
        parallel_for(job.run.on(), job.w.rows(), rows_at_once, some_rows, part_of(job.run.progress, 0.95, 1.0));
    if (!done) return done.error();
    return q;
  }

  rtn inner_;
  awq_options options_;
};

} // namespace sinq
