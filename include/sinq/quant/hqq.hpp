#pragma once

#include "hqq_loops.hpp"
#include "tiles.hpp"

#include <array>
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
/// Numerics: codes and residuals in f32 in the reference's order of operations, but for w / s + z, rounded once; sums
/// over a group in f32, of differences from z, in the order of hqq_loop, those over groups and rows in f64; the mean
/// error is compared in f32 as in the reference. The result does not depend on the number of threads. Cost O(iterations
/// * N * K). Source: dropbox/hqq hqq/core/{quantize,optimize}.py (optimize_weights_proximal_legacy); huawei-csl/SINQ
/// sinq/dual_shift.py (hqq_rtn).
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

  /// @param w     [N x K] of any floating type
  /// @param sink  takes codes, scales and zero points, which the result is then without; borrowed
  /// @errors      errc::empty_matrix, errc::non_finite (the first row and column), errc::invalid_argument,
  ///              errc::cancelled
  /// Memory: beside the result, a row for each thread and twelve floats a group.
  [[nodiscard]] result<quantized_matrix> operator()(const weight_view& w, const run_options& run,
                                                    block_sink* sink = nullptr) const {
    if (result<void> ok = check_quantizable(w, options_.group_size); !ok) return ok.error();
    if (result<void> ok = check(options_.solver); !ok) return ok.error();
    work job{w, format(w.rows(), w.cols()), run, (options_.solver.iterations + steps_at_once - 1) / steps_at_once + 1};
    const std::size_t places = detail::column_tile::whole(w.rows()) * job.format.groups();
    job.inverse.resize(places);
    job.zero.resize(places);
    job.zeros.resize(static_cast<std::size_t>(std::min(options_.solver.iterations, steps_at_once)) * places);
    job.row_error.resize(static_cast<std::size_t>(steps_at_once) * w.rows());
    if (result<void> ok = iterate(job); !ok) return ok.error();
    return finish(job, sink);
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
  static constexpr int steps_at_once = 10;
  /// Groups are in the order of [rows / 16][G][16 rows].
  struct work {
    const weight_view& w;
    matrix_format format;
    const run_options& run;
    int passes; ///< at most, the last one included
    int pass = 0;
    std::vector<float> inverse{}, zero{}; ///< 1 / s and z
    std::vector<float> zeros{};           ///< [steps_at_once x groups] z after each iteration
    std::vector<double> row_error{};      ///< [steps_at_once x N] sum of |w - w'|

    [[nodiscard]] std::size_t place(std::size_t i, std::size_t g) const {
      return (i / detail::tile_lanes * format.groups() + g) * detail::tile_lanes + i % detail::tile_lanes;
    }
  };

  [[nodiscard]] detail::uniform_grid grid() const { return {static_cast<float>(max_code(bits_))}; }
  [[nodiscard]] matrix_format format(std::size_t rows, std::size_t cols) const {
    return {.rows = rows, .cols = cols, .bits = bits_, .group_size = options_.group_size, .aux = options_.aux};
  }

  /// Calls some(begin, end) over `count` parts of so many weights each, in parallel, as one pass of several.
  template <class Some>
  [[nodiscard]] static result<void> pass(work& job, std::size_t count, std::size_t weights, Some&& some) {
    const double share = 1.0 / job.passes;
    const progress_callback told = part_of(job.run.progress, job.pass * share, (job.pass + 1) * share);
    ++job.pass;
    result<void> done = parallel_for(job.run.on(), count, detail::tile_rows(count, weights * 4), some, told);
    if (!done && done.error().code == errc::non_finite) return detail::non_finite_weight(job.w);
    return done;
  }

  /// Some iterations of every group, so that weights are read once for all of them: each one's zero points and errors.
  /// The first of all passes starts them.
  [[nodiscard]] result<void> step(work& job, std::span<const detail::hqq_shrink> shrinks) const {
    const std::size_t blocks = (job.w.rows() + detail::tile_lanes - 1) / detail::tile_lanes;
    const bool first = job.pass == 0;
    std::fill(job.row_error.begin(), job.row_error.end(), 0.0);
    return pass(
        job, blocks, detail::tile_lanes * job.w.cols(), [&](std::size_t begin, std::size_t end) -> result<void> {
          detail::column_tile tile;
          for (std::size_t n = begin; n < end; ++n)
            for (std::size_t g = 0; g < job.format.groups(); ++g) {
              const std::size_t row = n * detail::tile_lanes, rows = std::min(detail::tile_lanes, job.w.rows() - row);
              tile.assign(job.w, row, g * job.format.group_size, rows, job.format.group_cols(g));
              if (!is_finite(tile.largest())) return make_error(errc::non_finite, "non-finite weight");
              const detail::hqq_block block{tile.column(0, 0), tile.stride(), tile.cols(), grid()};
              if (first) start(job, block, job.place(row, g));
              step(job, block, row, job.place(row, g), shrinks);
            }
          return {};
        });
  }

  void start(work& job, const detail::hqq_block& block, std::size_t place) const {
    detail::hqq_lanes low, high;
    detail::run_wide<detail::hqq_range_loop>(block, low, high);
    for (std::size_t lane = 0; lane < low.size(); ++lane) {
      const detail::hqq_group begin = detail::hqq_start(low[lane], high[lane], grid().top, options_.aux);
      job.inverse[place + lane] = begin.inverse;
      job.zero[place + lane] = begin.zero;
    }
  }

  void step(work& job, const detail::hqq_block& block, std::size_t row, std::size_t place,
            std::span<const detail::hqq_shrink> shrinks) const {
    std::array<detail::hqq_lanes, steps_at_once> errors;
    detail::run_wide<detail::hqq_loop>(block, shrinks, &job.inverse[place], &job.zero[place],
                                       job.zeros.empty() ? nullptr : &job.zeros[place], job.zero.size(), errors.data());
    for (std::size_t k = 0; k < shrinks.size(); ++k)
      for (std::size_t lane = 0; lane < std::min(detail::tile_lanes, job.w.rows() - row); ++lane)
        job.row_error[k * job.w.rows() + row + lane] += static_cast<double>(errors[k][lane]);
  }

  [[nodiscard]] result<void> iterate(work& job) const {
    const double weights = static_cast<double>(job.w.rows()) * static_cast<double>(job.w.cols());
    double beta = options_.solver.beta;
    float best = std::numeric_limits<float>::infinity();
    std::vector<float> kept;
    int left = options_.solver.iterations;
    do {
      std::vector<detail::hqq_shrink> shrinks;
      for (int k = 0; k < std::min(left, steps_at_once); ++k, beta *= static_cast<double>(options_.solver.kappa))
        shrinks.emplace_back(static_cast<double>(options_.solver.lp_norm), beta);
      if (result<void> done = step(job, shrinks); !done) return done;
      for (std::size_t k = 0; k < shrinks.size(); ++k) {
        const std::span<const float> zero = std::span{job.zeros}.subspan(k * job.zero.size(), job.zero.size());
        double sum = 0;
        for (std::size_t i = 0; i < job.w.rows(); ++i) sum += job.row_error[k * job.w.rows() + i];
        const float error = static_cast<float>(sum / weights);
        const bool better = error < best;
        if (better) best = error;
        if (better && options_.rule == hqq_rule::keep_best) kept.assign(zero.begin(), zero.end());
        const bool stop = !better && options_.rule == hqq_rule::stop_when_worse;
        if (stop || k + 1 == shrinks.size()) job.zero.assign(zero.begin(), zero.end());
        if (stop) return {};
      }
      left -= steps_at_once;
    } while (left > 0);
    if (!kept.empty()) job.zero = std::move(kept);
    return {};
  }

  [[nodiscard]] result<quantized_matrix> finish(work& job, block_sink* sink) const {
    quantized_matrix q;
    detail::part_target target{job.format, "hqq", sink, q};
    const auto floats = job.w.floats();
    const std::size_t cols = job.w.cols(), groups = job.format.groups();
    job.pass = job.passes - 1;
    result<void> done = pass(job, job.w.rows(), cols, [&](std::size_t begin, std::size_t end) -> result<void> {
      std::vector<float> loaded(floats ? 0 : cols), scale(groups), zero(groups);
      std::vector<std::uint8_t> codes(cols);
      for (std::size_t i = begin; i < end; ++i) {
        if (!floats) job.w.load(i, 0, loaded);
        const std::span<const float> row = floats ? floats->row(i) : std::span<const float>{loaded};
        for (std::size_t g = 0; g < groups; ++g) {
          const std::size_t place = job.place(i, g), col = g * job.format.group_size;
          scale[g] = 1 / job.inverse[place];
          zero[g] = detail::as_stored(job.zero[place], storage(options_.aux)) + 0.0f; // + 0: no negative zero
          detail::run_wide<detail::hqq_code_loop>(row.subspan(col, job.format.group_cols(g)),
                                                  detail::hqq_group{job.inverse[place], zero[g]}, grid(), &codes[col]);
        }
        (*target).put_codes(i, 0, {codes.data(), 1, cols});
        (*target).put_groups(i, 0, {scale.data(), 1, groups}, {zero.data(), 1, groups});
      }
      return {};
    });
    if (!done) return done.error();
    return q;
  }

  int bits_;
  hqq_options options_;
};

} // namespace sinq
