#pragma once

#include "../core/convert.hpp"
#include "../core/parallel.hpp"
#include "../core/powers.hpp"
#include "../core/weight_view.hpp"
#include "../math/hadamard.hpp"
#include "../math/input_moments.hpp"
#include "refine_options.hpp"
#include "row_fit.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <vector>

namespace sinq {

namespace detail {

/// Rows of a weight as floats, rotated where the format says so.
inline void load_rows(const weight_view& w, const matrix_format& f, std::size_t row_begin, matrix_view<float> to) {
  for (std::size_t i = 0; i < to.rows(); ++i) {
    w.load(row_begin + i, 0, to.row(i));
    if (f.rotation != 0) hadamard_rotate(to.row(i), f.rotation);
  }
}

/// Energies of the inputs that the codes' columns meet: those of R x, taking the x_j of a block as uncorrelated.
[[nodiscard]] inline std::vector<double> rotated_energies(std::vector<double> energies, std::size_t rotation) {
  for (std::size_t begin = 0; rotation != 0 && begin < energies.size(); begin += rotation) {
    const auto block = std::span{energies}.subspan(begin, rotation);
    double sum = 0;
    for (const double energy : block) sum += energy;
    std::fill(block.begin(), block.end(), sum / static_cast<double>(rotation));
  }
  return energies;
}

/// The least weight of a column beside the mean one: columns that are never seen still count a little.
inline constexpr double least_weight = 1e-6;
/// How far from the median a t is believed when energies are guessed from it.
inline constexpr double widest_guess = 8;
/// Rows of W from which a t is taken at its word.
inline constexpr double rows_to_guess = 128;

/// (t_j / median t)^power of one row of t: energies are guessed so, and t is stretched so.
[[nodiscard]] inline std::vector<double> relative_powers(std::span<const float> t, double power) {
  std::vector<float> sorted(t.begin(), t.end());
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  std::vector<double> powers(t.size(), 1.0);
  for (std::size_t j = 0; j < t.size() && *middle > 0; ++j)
    powers[j] = std::pow(std::clamp(double{t[j]} / double{*middle}, 1 / widest_guess, widest_guess), power);
  return powers;
}

/// Makes every t differ more from the median one: t_j (t_j / median t)^by.
inline void stretch_col_scale(quantized_matrix& q, double by) {
  for (std::size_t begin = 0; begin < q.col_scale.size(); begin += q.format.cols) {
    const std::span<float> t = std::span{q.col_scale}.subspan(begin, q.format.cols);
    const std::vector<double> factors = relative_powers(t, by);
    for (std::size_t j = 0; j < t.size(); ++j) t[j] = static_cast<float>(t[j] * factors[j]);
  }
}

/// Weights of the squared errors of one row tile, in units of t: E[x_j^2] t_j^2 over their mean.
[[nodiscard]] inline std::vector<float> error_weights(std::span<const double> energies, std::span<const float> t) {
  std::vector<double> m(t.size());
  double mean = 0;
  for (std::size_t j = 0; j < m.size(); ++j) {
    m[j] = energies[j] * (t[j] == 0 ? 1 : double{t[j]} * double{t[j]});
    mean += m[j] / static_cast<double>(m.size());
  }
  std::vector<float> weights(t.size(), 1.0f);
  if (mean > 0 && is_finite(mean))
    for (std::size_t j = 0; j < m.size(); ++j) weights[j] = static_cast<float>(std::max(m[j] / mean, least_weight));
  return weights;
}

/// Moves the common size of each column of groups from the scales into t, so that the scales of a row are alike, and
/// rounds t to its storage type. Scales and zero points are only near the best ones then.
class col_scale_settler {
public:
  explicit col_scale_settler(quantized_matrix& q) : q_{q}, f_{q.format} {}

  void operator()() {
    if (f_.has_col_scale)
      for (std::size_t tile = 0; tile < f_.row_tiles(); ++tile) even_out(tile);
    if (const int shift = find_shift(); shift != 0) move(shift);
    if (f_.has_col_scale) round();
  }

private:
  void even_out(std::size_t tile) {
    const std::size_t begin = tile * f_.tile_height();
    const std::size_t end = std::min(f_.rows, begin + f_.tile_height());
    std::vector<double> factor(f_.groups()), count(f_.groups());
    for (std::size_t i = begin; i < end; ++i)
      for (std::size_t g = 0; g < f_.groups(); ++g)
        if (const double reach = farthest(i, g) / 16; reach > 0) factor[g] += near_log2(reach), ++count[g];
    for (std::size_t g = 0; g < f_.groups(); ++g) factor[g] = count[g] == 0 ? 1 : near_exp2(factor[g] / count[g]);
    for (std::size_t i = begin; i < end; ++i)
      for (std::size_t g = 0; g < f_.groups(); ++g)
        q_.scale[i * f_.groups() + g] = static_cast<float>(double{q_.scale[i * f_.groups() + g]} / factor[g]);
    float* const t = q_.col_scale.data() + tile * f_.cols;
    for (std::size_t j = 0; j < f_.cols; ++j) t[j] = static_cast<float>(t[j] * factor[j / f_.group_size]);
  }

  /// How far from 0 the levels of a group reach, whatever its scale; 0 for a group of zeros.
  [[nodiscard]] double farthest(std::size_t i, std::size_t g) const {
    const float zero = q_.zero_at(i, g);
    const std::span<const float> levels = q_.levels();
    if (!q_.codes.empty()) {
      const auto codes = q_.code_matrix().row(i).subspan(g * f_.group_size, f_.group_cols(g));
      if (std::all_of(codes.begin(), codes.end(), [&](std::uint8_t code) { return levels[code] == zero; })) return 0;
    }
    return std::fabs(double{q_.scale[i * f_.groups() + g]}) *
           double{std::max(std::fabs(levels.front() - zero), std::fabs(levels.back() - zero))};
  }

  /// Exponent k such that t 2^k and scale 2^-k suit their storage.
  [[nodiscard]] int find_shift() const {
    float least_t = std::numeric_limits<float>::max();
    for (const float t : q_.col_scale)
      if (t > 0) least_t = std::min(least_t, t);
    float least_row = std::numeric_limits<float>::max(), most_row = 0;
    for (std::size_t i = 0; i < f_.rows; ++i) {
      const auto row = q_.scale.begin() + static_cast<std::ptrdiff_t>(i * f_.groups());
      const float most = *std::max_element(row, row + static_cast<std::ptrdiff_t>(f_.groups()));
      if (most > 0) least_row = std::min(least_row, most);
      most_row = std::max(most_row, most);
    }
    if (most_row == 0) return 0;
    int shift = 0;
    if (f_.has_col_scale && f_.col_scale_type == dtype::f8_e4m3) shift = -6 - std::ilogb(least_t);
    if (f_.scale_bits == 0 || f_.aux != aux_dtype::f16) return shift;
    const bool fits = std::ilogb(least_row) - shift - f_.scale_bits >= -13 && std::ilogb(most_row) - shift <= 14;
    return fits ? shift : std::ilogb(most_row) - 13;
  }

  void move(int shift) {
    if (!f_.has_col_scale) {
      f_.has_col_scale = true;
      f_.col_scale_type = storage(f_.aux);
      q_.col_scale.assign(f_.row_tiles() * f_.cols, 1.0f);
    }
    for (float& t : q_.col_scale) t = std::ldexp(t, shift);
    for (float& s : q_.scale) s = std::ldexp(s, -shift);
  }

  void round() {
    if (!fits(q_.col_scale, f_.col_scale_type)) f_.col_scale_type = dtype::f32;
    for (float& t : q_.col_scale) t = as_stored(t, f_.col_scale_type);
  }

  quantized_matrix& q_;
  matrix_format& f_;
};

/// to[i][j] = w[i][j] / by[j]; the two may be the same
struct divide_columns_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const matrix_view<const float>& w, const float* by, const matrix_view<float>& to) {
    vec<float, W> x, divisor;
    for (std::size_t i = 0; i < w.rows(); ++i) {
      const float* const from = w.data() + i * w.stride();
      float* const row = to.data() + i * to.stride();
      std::size_t j = 0;
      for (; j + W <= w.cols(); j += W) {
        load(from + j, x);
        load(by + j, divisor);
        store(x / divisor, row + j);
      }
      for (; j < w.cols(); ++j) row[j] = from[j] / by[j];
    }
  }
};

/// Runs row_fitter over a matrix in blocks of 32 rows of one row tile.
template <class Grid>
[[nodiscard]] result<void> fit_rows(const weight_view& w, const Grid& grid, const fit_options& fit, bool search,
                                    const std::vector<std::vector<float>>& weights, quantized_matrix& q,
                                    const run_options& run) {
  const matrix_format& f = q.format;
  const std::size_t height = f.tile_height();
  const std::size_t blocks = (height + fit_lanes - 1) / fit_lanes;
  const auto fit_block = [&](std::size_t begin, std::size_t end) -> result<void> {
    row_fitter<Grid> fitter{q, grid, fit, search};
    aligned_buffer<float> values{fit_lanes * f.cols, aligned_buffer<float>::uninitialized};
    const std::optional<matrix_view<const float>> in_place = w.floats();
    std::vector<float> divisor(f.has_col_scale ? f.cols : 0);
    for (std::size_t n = begin; n < end; ++n) {
      const std::size_t tile = n / blocks;
      const std::size_t i0 = tile * height + n % blocks * fit_lanes;
      const std::size_t i1 = std::min({f.rows, (tile + 1) * height, i0 + fit_lanes});
      if (i0 >= i1) continue;
      const matrix_view<float> rows{values.data(), i1 - i0, f.cols};
      matrix_view<const float> source = rows;
      if (f.has_col_scale && f.rotation == 0 && in_place)
        source = in_place->block(i0, 0, rows.rows(), f.cols);
      else
        load_rows(w, f, i0, rows);
      for (std::size_t j = 0; j < divisor.size(); ++j) {
        const float t = q.col_scale[tile * f.cols + j];
        divisor[j] = t == 0 ? 1 : t;
      }
      if (f.has_col_scale) run_wide<divide_columns_loop>(source, divisor.data(), rows);
      fitter(i0, rows, weights[tile]);
    }
    return {};
  };
  return parallel_for(run.on(), f.row_tiles() * blocks, 2, fit_block, run.progress);
}

} // namespace detail

/// Fits scales, zero points and codes of a quantized matrix anew, at no more storage: t is settled and rounded to its
/// type first (where energies are guessed, it is stretched before); each group's range is searched, alternating least
/// squares follow, and what the format quantizes (scales, zero points) is rounded before the rest is fitted to it.
/// minimise sum_ij e_j (W - W')_ij^2,  e_j = E[x_j^2] given, or guessed as t_j^-power
/// @param w         [N x K], the weights that q was made from
/// @param q         its codes may be missing, an empty buffer, where there is a search; groups of zeros have scale 0
/// then
/// @param energies  [K] E[x_j^2], or empty for the guess
/// @param search    false: scales and zero points stay, but for what storage changes
/// @errors          errc::invalid_argument (shapes), errc::cancelled
/// Numerics: see fit_groups; the same for any executor.
[[nodiscard]] inline result<void> refine(const weight_view& w, quantized_matrix& q, std::vector<double> energies = {},
                                         const refine_options& options = {}, bool search = true,
                                         const run_options& run = {}) {
  const matrix_format& f = q.format;
  if (w.rows() != f.rows || w.cols() != f.cols || (!energies.empty() && energies.size() != f.cols))
    return make_error(errc::invalid_argument, "refine: the weights are ", w.rows(), " x ", w.cols(), " with ",
                      energies.size(), " energies, the quantized matrix ", f.rows, " x ", f.cols);
  if (q.codes.size() != f.rows * f.cols && !(search && q.codes.empty()))
    return make_error(errc::invalid_argument, "refine: ", q.codes.size(), " codes for ", f.rows, " x ", f.cols);
  if (options.fit.candidates < 1 || !(options.fit.narrowing >= 0) ||
      !(options.fit.narrowing * static_cast<float>(options.fit.candidates - 1) < 1))
    return make_error(errc::invalid_argument, "refine: ", options.fit.candidates, " candidates narrowed by ",
                      options.fit.narrowing, " each, expected at least one, and a rest of the range for the last");
  // t of few rows says little of the inputs
  const double trust = std::min(1.0, static_cast<double>(f.tile_height()) / detail::rows_to_guess);
  const bool guess = energies.empty() && search;
  if (guess) detail::stretch_col_scale(q, options.col_scale_stretch * trust);
  detail::col_scale_settler{q}();
  if (q.codes.empty()) q.codes = {f.rows * f.cols, aligned_buffer<std::uint8_t>::uninitialized};
  energies = detail::rotated_energies(std::move(energies), f.rotation);
  std::vector<std::vector<float>> weights;
  const std::vector<float> ones(f.has_col_scale ? 0 : f.cols, 1.0f);
  for (std::size_t tile = 0; tile < f.row_tiles(); ++tile) {
    const std::span<const float> t =
        f.has_col_scale ? std::span<const float>{q.col_scale}.subspan(tile * f.cols, f.cols) : std::span{ones};
    const double power = guess ? options.col_scale_power * trust : 0.0;
    weights.push_back(detail::error_weights(energies.empty() ? detail::relative_powers(t, -power) : energies, t));
  }
  if (f.grid == grid::uniform)
    return detail::fit_rows(w, detail::uniform_grid{static_cast<float>(max_code(f.bits))}, options.fit, search, weights,
                            q, run);
  return detail::fit_rows(w, detail::codebook_grid{q.levels()}, options.fit, search, weights, q, run);
}

} // namespace sinq
