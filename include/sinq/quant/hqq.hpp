#pragma once

#include "hqq_loops.hpp"
#include "tiles.hpp"

#include <limits>
#include <utility>
#include <vector>

namespace sinq {

/// Constants of the half-quadratic iteration; the defaults are those of dropbox/hqq.
struct hqq_solver {
  int iterations = 20;  ///< at most, >= 0
  float lp_norm = 0.7f; ///< p of the norm of the error, in (0, 1]
  float beta = 10.0f;   ///< weight of the penalty, > 0
  float kappa = 1.01f;  ///< beta grows by this factor from iteration to iteration, > 0
};

/// Which of the iterates is the result.
enum class hqq_rule : std::uint8_t {
  stop_when_worse, ///< the one after the first that does not lower the mean error of the whole matrix (dropbox/hqq)
  keep_best,       ///< the one after that of least mean error (SINQ's own solver)
};

/// Options of HQQ.
struct hqq_options {
  std::size_t group_size = 64;
  hqq_solver solver{};
  hqq_rule rule = hqq_rule::stop_when_worse;
  aux_dtype aux = aux_dtype::f16; ///< bounds and rounds the zero points: see hqq_quantizer
};

/// Half-quadratic quantization: round to nearest, then zero points that lower the p-norm of the error.
/// s = (hi - lo) / (2^b - 1), z = -lo / s; then, beta growing by kappa, again and again
/// q = clamp(round(w / s + z), 0, 2^b - 1), e = shrink(w - s (q - z)), z = mean(q - (w - e) / s)
/// shrink(x) = sign(x) max(0, |x| - |x|^(p - 1) / beta), which is 0 for |x| < beta^(-1 / (2 - p)) = 0.17
/// When to stop and which z to keep is hqq_rule; s never moves. Codes belong to the z that is kept, rounded to `aux`.
/// Unlike the reference there are no absolute bounds (range above 1e-4, s above 5e-5), which wipe small weights out;
/// instead s is at least max|w| over the largest zero point that `aux` can hold. Where those bounds do not act, results
/// are those of the reference but for the last bits of z, which later iterations can turn into other codes.
/// Numerics: codes and residuals in f32 in the reference's order of operations, but for w / s + z in f64; means in f64
/// in the order of math/stats.hpp, row after row; the mean error is compared in f32 as in the reference. The result
/// does not depend on the number of threads. Cost O(iterations * N * K). Source: dropbox/hqq
/// hqq/core/{quantize,optimize}.py (optimize_weights_proximal_legacy); huawei-csl/SINQ sinq/dual_shift.py (hqq_rtn).
class hqq_quantizer {
public:
  static constexpr bool row_independent = false;

  /// @pre is_supported_bits(bits)
  explicit hqq_quantizer(int bits, const hqq_options& options = {}) : bits_{bits}, options_{options} {
    SINQ_ASSERT(is_supported_bits(bits));
  }

  [[nodiscard]] int bits() const { return bits_; }
  [[nodiscard]] std::size_t group_size() const { return options_.group_size; }
  [[nodiscard]] const hqq_options& options() const { return options_; }

  /// @param w  [N x K], finite, all of what `rule` means by the whole matrix
  /// @errors   as below
  [[nodiscard]] result<quantized_matrix> operator()(matrix_view<const float> w) const {
    serial_executor serial;
    return (*this)(weight_view{w}, {.threads = &serial, .progress = {}});
  }

  /// @param w  [N x K] of any floating type
  /// @errors   errc::empty_matrix, errc::non_finite (the first row and column), errc::invalid_argument, errc::cancelled
  /// Memory: beside the result, a row for each thread and seven floats a group.
  [[nodiscard]] result<quantized_matrix> operator()(const weight_view& w, const run_options& run) const {
    if (result<void> ok = check_quantizable(w, options_.group_size); !ok) return ok.error();
    if (result<void> ok = check(options_.solver); !ok) return ok.error();
    work job{w, format(w.rows(), w.cols()), run, (options_.solver.iterations + steps_at_once - 1) / steps_at_once + 2};
    job.group.resize(w.rows() * job.format.groups());
    job.zero.resize(static_cast<std::size_t>(steps_at_once) * job.group.size());
    job.row_error.resize(static_cast<std::size_t>(steps_at_once) * w.rows());
    if (result<void> ok = start(job); !ok) return ok.error();
    if (result<void> ok = iterate(job); !ok) return ok.error();
    return finish(job);
  }

  /// Whether the iteration can run with these constants.
  [[nodiscard]] static result<void> check(const hqq_solver& s) {
    if (s.iterations < 0)
      return make_error(errc::invalid_argument, "hqq: iterations is ", s.iterations, ", expected >= 0");
    if (!(s.lp_norm > 0 && s.lp_norm <= 1))
      return make_error(errc::invalid_argument, "hqq: lp_norm is ", s.lp_norm, ", expected one in (0, 1]");
    if (!(s.beta > 0 && is_finite(s.beta) && s.kappa > 0 && is_finite(s.kappa)))
      return make_error(errc::invalid_argument, "hqq: beta is ", s.beta, " and kappa ", s.kappa, ", expected > 0");
    return {};
  }

private:
  static constexpr int steps_at_once = 5;
  struct work {
    const weight_view& w;
    matrix_format format;
    const run_options& run;
    int passes; ///< at most, start and finish included
    int pass = 0;
    std::vector<detail::hqq_group> group{}; ///< [N x G]
    std::vector<float> zero{};              ///< [steps_at_once x N x G] after each iteration
    std::vector<double> row_error{};        ///< [steps_at_once x N] sum of |w - w'|
  };

  [[nodiscard]] float top() const { return static_cast<float>(max_code(bits_)); }
  [[nodiscard]] matrix_format format(std::size_t rows, std::size_t cols) const {
    return {.rows = rows, .cols = cols, .bits = bits_, .group_size = options_.group_size, .aux = options_.aux};
  }

  /// Calls each(i, row, finite) for every row, in parallel.
  template <class Each>
  [[nodiscard]] static result<void> for_rows(work& job, Each&& each) {
    const auto some_rows = [&](std::size_t begin, std::size_t end) -> result<void> {
      std::vector<float> row(job.w.cols());
      for (std::size_t i = begin; i < end; ++i) {
        const bool finite = detail::load_finite(job.w, i, 0, {row.data(), 1, row.size()});
        if (!finite) return make_error(errc::non_finite, "non-finite weight");
        each(i, std::span<const float>{row});
      }
      return {};
    };
    const double share = 1.0 / job.passes;
    const progress_callback told = part_of(job.run.progress, job.pass * share, (job.pass + 1) * share);
    ++job.pass;
    result<void> done =
        parallel_for(job.run.on(), job.w.rows(), detail::tile_rows(job.w.rows(), job.w.cols() * 4), some_rows, told);
    if (!done && done.error().code == errc::non_finite) return detail::non_finite_weight(job.w);
    return done;
  }

  /// Calls each(weights, group n) for every group of a row.
  template <class Each>
  static void for_groups(const work& job, std::size_t i, std::span<const float> row, Each&& each) {
    for (std::size_t g = 0; g < job.format.groups(); ++g)
      each(row.subspan(g * job.format.group_size, job.format.group_cols(g)), i * job.format.groups() + g);
  }

  [[nodiscard]] result<void> start(work& job) const {
    return for_rows(job, [&](std::size_t i, std::span<const float> row) {
      for_groups(job, i, row, [&](std::span<const float> w, std::size_t n) {
        job.group[n] = detail::hqq_start(w, top(), options_.aux);
      });
    });
  }

  /// Some iterations of every group, so that weights are read once for all of them: each one's zero points and errors.
  [[nodiscard]] result<void> step(work& job, std::span<const detail::hqq_shrink> shrinks) const {
    return for_rows(job, [&](std::size_t i, std::span<const float> row) {
      for (std::size_t k = 0; k < shrinks.size(); ++k) job.row_error[k * job.w.rows() + i] = 0;
      for_groups(job, i, row, [&](std::span<const float> w, std::size_t n) {
        detail::hqq_group g = job.group[n];
        for (std::size_t k = 0; k < shrinks.size(); ++k) {
          job.row_error[k * job.w.rows() + i] += detail::hqq_step(w, g, top(), shrinks[k]);
          job.zero[k * job.group.size() + n] = g.zero;
        }
      });
    });
  }

  [[nodiscard]] result<void> iterate(work& job) const {
    const double weights = static_cast<double>(job.w.rows()) * static_cast<double>(job.w.cols());
    double beta = options_.solver.beta;
    float best = std::numeric_limits<float>::infinity();
    std::vector<float> kept;
    for (int left = options_.solver.iterations; left > 0; left -= steps_at_once) {
      std::vector<detail::hqq_shrink> shrinks;
      for (int k = 0; k < std::min(left, steps_at_once); ++k, beta *= static_cast<double>(options_.solver.kappa))
        shrinks.emplace_back(static_cast<double>(options_.solver.lp_norm), beta);
      if (result<void> done = step(job, shrinks); !done) return done;
      for (std::size_t k = 0; k < shrinks.size(); ++k) {
        const std::span<const float> zero = std::span{job.zero}.subspan(k * job.group.size(), job.group.size());
        double sum = 0;
        for (std::size_t i = 0; i < job.w.rows(); ++i) sum += job.row_error[k * job.w.rows() + i];
        const float error = static_cast<float>(sum / weights);
        const bool better = error < best;
        if (better) best = error;
        if (better && options_.rule == hqq_rule::keep_best) kept.assign(zero.begin(), zero.end());
        move_to(job, zero);
        if (!better && options_.rule == hqq_rule::stop_when_worse) return {};
      }
    }
    if (!kept.empty()) move_to(job, kept);
    return {};
  }

  static void move_to(work& job, std::span<const float> zero) {
    for (std::size_t n = 0; n < zero.size(); ++n) job.group[n].zero = zero[n];
  }

  [[nodiscard]] result<quantized_matrix> finish(work& job) const {
    quantized_matrix q = quantized_matrix::allocate(job.format, "hqq");
    job.pass = job.passes - 1;
    result<void> done = for_rows(job, [&](std::size_t i, std::span<const float> row) {
      std::uint8_t* code = q.codes.data() + i * row.size();
      for_groups(job, i, row, [&](std::span<const float> w, std::size_t n) {
        detail::hqq_group g = job.group[n];
        g.zero = detail::as_stored(g.zero, storage(options_.aux)) + 0.0f; // + 0: no negative zero
        for (const float weight : w) *code++ = detail::uniform_grid{top()}.code(detail::hqq_position(weight, g));
        q.scale[n] = 1 / g.inverse;
        q.zero[n] = g.zero;
      });
    });
    if (!done) return done.error();
    return q;
  }

  int bits_;
  hqq_options options_;
};

} // namespace sinq
