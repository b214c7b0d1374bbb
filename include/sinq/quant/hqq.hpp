#pragma once

#include "../math/stats.hpp"
#include "grids.hpp"
#include "rtn.hpp"
#include "tiles.hpp"

#include <cmath>
#include <utility>

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

namespace detail {

/// One group while HQQ runs: 1 / s and z.
struct hqq_group {
  float inverse;
  float zero;
};

/// w / s + z, rounded to f32 at the end: the product is exact in f64, so that fused multiply-adds change nothing.
[[nodiscard]] inline float hqq_position(float w, hqq_group g) {
  return static_cast<float>(static_cast<double>(w) * static_cast<double>(g.inverse) + static_cast<double>(g.zero));
}

/// The generalised soft threshold sign(x) max(0, |x| - |x|^(p - 1) / beta), and below which |x| it is 0.
struct hqq_shrink {
  double power;
  float inverse_beta;
  float zero_below;

  hqq_shrink(double p, double beta)
      : power{p - 1}, inverse_beta{static_cast<float>(1 / beta)}, zero_below{static_cast<float>(
                                                                      0.999 * std::pow(beta, -1 / (2 - p)))} {}

  [[nodiscard]] float operator()(float x) const {
    const double size = std::fabs(static_cast<double>(x));
    if (size < static_cast<double>(zero_below)) return 0.0f;
    const float slope = static_cast<float>(std::pow(size, power));
    const double threshold = static_cast<double>(slope) * static_cast<double>(inverse_beta); // exact
    return static_cast<float>(std::copysign(std::max(0.0, size - threshold), static_cast<double>(x)));
  }
};

/// What one pass over a group finds: sums of |w - w'| and of the new zero points of single weights.
struct hqq_sums {
  lane_sums error{};
  lane_sums zero{};
  float largest = 0; ///< max |w - w'|
};

template <bool Shrinks>
[[nodiscard]] hqq_sums hqq_pass(std::span<const float> w, hqq_group g, float top, const hqq_shrink& shrink) {
  hqq_sums sums;
  std::array<float, reduction_lanes> largest{};
  const auto add = [&](float weight, std::size_t lane) {
    const float code = uniform_grid{top}.nearest(hqq_position(weight, g));
    const float residual = weight - (code - g.zero) / g.inverse;
    const float size = std::fabs(residual);
    largest[lane] = largest[lane] < size ? size : largest[lane];
    sums.error[lane] += static_cast<double>(size);
    const float target = Shrinks ? weight - shrink(residual) : weight;
    sums.zero[lane] += static_cast<double>(code) - static_cast<double>(target) * static_cast<double>(g.inverse);
  };
  std::size_t k = 0;
  for (; k + reduction_lanes <= w.size(); k += reduction_lanes)
    for (std::size_t lane = 0; lane < reduction_lanes; ++lane) add(w[k + lane], lane);
  for (std::size_t lane = 0; k + lane < w.size(); ++lane) add(w[k + lane], lane);
  sums.largest = *std::max_element(largest.begin(), largest.end());
  return sums;
}

/// One iteration of a group: moves its zero point and returns the sum of |w - w'| from before.
[[nodiscard]] inline double hqq_step(std::span<const float> w, hqq_group& g, float top, const hqq_shrink& shrink) {
  hqq_sums sums = hqq_pass<false>(w, g, top, shrink);
  if (sums.largest >= shrink.zero_below) sums = hqq_pass<true>(w, g, top, shrink);
  g.zero = static_cast<float>(add_lanes(sums.zero) / static_cast<double>(w.size()));
  return add_lanes(sums.error);
}

/// Where the iteration starts: the scale between smallest and largest weight, and the zero point that fits it exactly.
[[nodiscard]] inline hqq_group hqq_start(std::span<const float> w, float top, aux_dtype aux) {
  const auto [low, high] = low_and_high(w);
  const float size = std::max(-low, high);
  if (size == 0) return {top / 1e-4f, 0.0f};
  const float range = high - low;
  const float inverse = is_finite(range) ? top / range : 1 / (high / top - low / top);
  const float coarsest = std::max(size / max_zero(aux), std::numeric_limits<float>::min());
  const float bounded = std::min(inverse, 1 / coarsest);
  return {bounded, -low * bounded};
}

} // namespace detail

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
  /// Memory: beside the result, a row for each thread and two floats a group.
  [[nodiscard]] result<quantized_matrix> operator()(const weight_view& w, const run_options& run) const {
    if (result<void> ok = check_quantizable(w, options_.group_size); !ok) return ok.error();
    if (result<void> ok = check(options_.solver); !ok) return ok.error();
    work job{w, format(w.rows(), w.cols()), run, options_.solver.iterations + 2};
    job.group.resize(w.rows() * job.format.groups());
    job.row_error.resize(w.rows());
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
  struct work {
    const weight_view& w;
    matrix_format format;
    const run_options& run;
    int passes; ///< at most, start and finish included
    int pass = 0;
    std::vector<detail::hqq_group> group{}; ///< [N x G]
    std::vector<double> row_error{};        ///< [N] sum of |w - w'|
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

  [[nodiscard]] result<void> iterate(work& job) const {
    const double weights = static_cast<double>(job.w.rows()) * static_cast<double>(job.w.cols());
    double beta = options_.solver.beta;
    float best = std::numeric_limits<float>::infinity();
    std::vector<detail::hqq_group> kept;
    for (int k = 0; k < options_.solver.iterations; ++k, beta *= static_cast<double>(options_.solver.kappa)) {
      const detail::hqq_shrink shrink{static_cast<double>(options_.solver.lp_norm), beta};
      result<void> done = for_rows(job, [&](std::size_t i, std::span<const float> row) {
        job.row_error[i] = 0;
        for_groups(job, i, row, [&](std::span<const float> w, std::size_t n) {
          job.row_error[i] += detail::hqq_step(w, job.group[n], top(), shrink);
        });
      });
      if (!done) return done;
      double sum = 0;
      for (const double row : job.row_error) sum += row;
      const float error = static_cast<float>(sum / weights);
      const bool better = error < best;
      if (better) best = error;
      if (!better && options_.rule == hqq_rule::stop_when_worse) return {};
      if (better && options_.rule == hqq_rule::keep_best) kept = job.group;
    }
    if (!kept.empty()) job.group = std::move(kept);
    return {};
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
