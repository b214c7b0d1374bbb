#pragma once

#include "../core/levels.hpp"
#include "../math/stats.hpp"
#include "grids.hpp"
#include "rtn.hpp"

#include <utility>

namespace sinq {

namespace detail {

/// The mean of each group: sums in f64 in the order of math/stats.hpp.
struct group_mean_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const grouped_rows& rows, float* mean) {
    constexpr std::size_t width = W < 2 ? 1 : W / 2;
    const std::size_t whole = rows.w.cols() / rows.group_size / width * width;
    for (std::size_t i = 0; i < rows.w.rows(); ++i) {
      const float* const w = rows.w.data() + i * rows.w.stride();
      std::size_t g = 0;
      for (; g < whole; g += width, mean += width) find_some<width>(w + g * rows.group_size, rows.group_size, mean);
      for (std::size_t j = g * rows.group_size; j < rows.w.cols(); j += rows.group_size) {
        const std::size_t count = std::min(rows.group_size, rows.w.cols() - j);
        vec<double, width> sum;
        add_all<width>(w + j, count, sum);
        sum_of_lanes<width>(sum);
        *mean++ = static_cast<float>(sum[0] / static_cast<double>(count));
      }
    }
  }

private:
  /// W groups at a time, whose lanes are added in one tree.
  template <std::size_t W>
  SINQ_INLINE static void find_some(const float* w, std::size_t group_size, float* mean) {
    vec<double, W> sums[W];
    for (std::size_t n = 0; n < W; ++n) add_all<W>(w + n * group_size, group_size, sums[n]);
    join_lanes<W>(sums, take_sum{});
    store(__builtin_convertvector(sums[0] / static_cast<double>(group_size), vec<float, W>), mean);
  }
  template <std::size_t W>
  SINQ_INLINE static void add_all(const float* w, std::size_t count, vec<double, W>& to) {
    constexpr std::size_t pieces = reduction_lanes / W;
    vec<double, W> sum[pieces]{};
    std::size_t k = 0;
    for (; k + reduction_lanes <= count; k += reduction_lanes) add<W>(w + k, sum);
    if (k < count) {
      float rest[reduction_lanes]{}; // zeros change no sum
      std::copy_n(w + k, count - k, rest);
      add<W>(rest, sum);
    }
    for (std::size_t half = pieces / 2; half > 0; half /= 2)
      for (std::size_t p = 0; p < half; ++p) sum[p] += sum[p + half];
    to = sum[0];
  }
  template <std::size_t W, std::size_t Pieces>
  SINQ_INLINE static void add(const float* w, vec<double, W> (&sum)[Pieces]) {
    for (std::size_t p = 0; p < Pieces; ++p) {
      vec<double, W> x;
      load_as<double, W>(w + p * W, x);
      sum[p] += x;
    }
  }
};

/// Scales and zero points, not yet rounded, of a codebook, in place of the smallest and largest weight of each group.
struct codebook_fit_loop {
  float bottom, top;    ///< the outermost levels
  float farthest;       ///< that a zero point may lie from 0
  float scale_of_zeros; ///< of a group of zeros

  /// @param mean  of each group, or zeros
  template <std::size_t W>
  SINQ_INLINE static void run(const codebook_fit_loop& by, float* low, float* high, const float* mean, std::size_t n) {
    constexpr std::size_t width = W < 2 ? 1 : W / 2;
    std::size_t k = 0;
    for (; k + width <= n; k += width) find<width>(by, low + k, high + k, mean + k);
    for (; k < n; ++k) find<1>(by, low + k, high + k, mean + k);
  }

private:
  template <std::size_t W>
  SINQ_INLINE static void find(const codebook_fit_loop& by, float* lows, float* highs, const float* means) {
    using doubles = vec<double, W>;
    vec<float, W> low, high, mean;
    load(lows, low);
    load(highs, high);
    load(means, mean);
    const doubles middle = __builtin_convertvector(mean, doubles);
    const doubles above = (__builtin_convertvector(high, doubles) - middle) / static_cast<double>(by.top);
    const doubles below = (__builtin_convertvector(low, doubles) - middle) / static_cast<double>(by.bottom);
    doubles step = above < below ? below : above;
    clamp(step, doubles{} + static_cast<double>(std::numeric_limits<float>::min()),
          doubles{} + static_cast<double>(std::numeric_limits<float>::max()));
    vec<float, W> scale = __builtin_convertvector(step, vec<float, W>);
    const vec<float, W> coarsest = (mean < 0.0f ? -mean : mean) / by.farthest;
    scale = scale < coarsest ? coarsest : scale;
    const vec<float, W> most = -low > high ? -low : high; // max |w|
    store(most == 0.0f ? vec<float, W>{} : -mean / scale, highs);
    store(most == 0.0f ? vec<float, W>{} + by.scale_of_zeros : scale, lows);
  }
  template <class Vector>
  SINQ_INLINE static void clamp(Vector& x, const Vector& low, const Vector& high) {
    x = x < low ? low : x;
    x = high < x ? high : x;
  }
};

} // namespace detail

/// A grid of levels that a codebook_quantizer chooses from.
struct codebook {
  sinq::grid grid = sinq::grid::nf4;
  int bits = 4;
  std::vector<float> levels; ///< [2^bits], rising, on both sides of 0

  [[nodiscard]] static codebook nf4() { return {grid::nf4, 4, {nf4_levels.begin(), nf4_levels.end()}}; }
  [[nodiscard]] static codebook nf3() { return {grid::nf3, 3, {nf3_levels.begin(), nf3_levels.end()}}; }

  /// A codebook of any levels: grid::custom.
  /// @errors  errc::invalid_argument (names the count, level or pair that is wrong): a count that is not 2^b for one of
  ///          supported_bits, a level that is not finite, levels that do not rise, none below or none above 0, or a
  ///          largest magnitude outside [1/128, 128], which keeps zero points within f16
  [[nodiscard]] static result<codebook> make(std::span<const float> levels) {
    codebook made{grid::custom, 0, {levels.begin(), levels.end()}};
    for (const int width : supported_bits)
      if (levels.size() == static_cast<std::size_t>(max_code(width)) + 1) made.bits = width;
    if (made.bits == 0)
      return make_error(errc::invalid_argument, levels.size(), " levels, expected 4, 8, 16, 32, 64 or 256");
    for (std::size_t k = 0; k < levels.size(); ++k) {
      if (!is_finite(levels[k])) return make_error(errc::invalid_argument, "level ", k, " is ", levels[k]);
      if (k > 0 && !(levels[k - 1] < levels[k]))
        return make_error(errc::invalid_argument, "level ", k, " is ", levels[k], " after ", levels[k - 1],
                          ", expected levels that rise");
    }
    if (!(levels.front() < 0 && levels.back() > 0))
      return make_error(errc::invalid_argument, "levels run from ", levels.front(), " to ", levels.back(),
                        ", expected both sides of 0");
    if (const float reach = std::max(-levels.front(), levels.back()); reach < 0x1p-7f || reach > 0x1p7f)
      return make_error(errc::invalid_argument, "the largest magnitude of a level is ", reach,
                        ", expected one in [1/128, 128]");
    return made;
  }
};

/// Where the zero of a codebook lies in each group.
enum class codebook_shift : std::uint8_t {
  mean, ///< on the mean of the group's weights (the reference's default)
  none, ///< on 0; no zero point is stored
};

/// Options of a codebook quantizer.
struct codebook_options {
  std::size_t group_size = 64;
  codebook_shift shift = codebook_shift::mean;
  aux_dtype aux = aux_dtype::f16; ///< bounds and rounds the zero points: see codebook_quantizer
};

/// Quantization of each group to the nearest of 2^b given levels l_0 < .. < 0 < .. < l_top, stretched to just reach its
/// smallest and largest weight.
/// mean: mu = mean(w), s = max((max w - mu) / l_top, (mu - min w) / -l_0), z = -mu / s
/// none: mu = z = 0
/// q = the k whose l_k is nearest to w / s + z, the lower one of two;  w ~ s (l_q - z)
/// For levels from -1 to 1, as NF4 and NF3 have them, s is the reference's max|w - mu|. Unlike the reference there is
/// no absolute floor of 1e-4 on s; instead |z| stays below max|l| times 256 for f16, 32 for bf16 and 2^19 for f32 by a
/// coarser s, z is rounded to `aux` before codes are chosen, and a group of zeros is stored as exactly that. Where none
/// of this acts, results are those of the reference but for the last bits of the mean.
/// Numerics: f32 in the reference's order of operations; the mean in f64 in the order of math/stats.hpp; no overflow
/// for any finite input. Source: huawei-csl/SINQ sinq/dual_shift.py (quantize_rtn, modes nf4 and nf3).
class codebook_quantizer {
public:
  static constexpr bool row_independent = true;

  /// @pre `book` is nf4(), nf3() or one that codebook::make has checked
  explicit codebook_quantizer(codebook book, const codebook_options& options = {})
      : book_{std::move(book)}, options_{options}, reach_{std::max(-book_.levels.front(), book_.levels.back())},
        grid_{book_.levels}, at_zero_{grid_.code(0.0f)} {}

  [[nodiscard]] int bits() const { return book_.bits; }
  [[nodiscard]] std::size_t group_size() const { return options_.group_size; }
  [[nodiscard]] const codebook_options& options() const { return options_; }
  [[nodiscard]] std::span<const float> levels() const { return book_.levels; }

  /// @param w  [N x K], finite
  /// @errors   errc::empty_matrix, errc::invalid_argument (group_size 0)
  [[nodiscard]] result<quantized_matrix> operator()(matrix_view<const float> w) const {
    if (w.empty()) return make_error(errc::empty_matrix, "codebook: the matrix is ", w.rows(), " x ", w.cols());
    if (options_.group_size == 0) return make_error(errc::invalid_argument, "codebook: group_size is 0, expected >= 1");
    quantized_matrix q = quantized_matrix::allocate({.rows = w.rows(),
                                                     .cols = w.cols(),
                                                     .bits = book_.bits,
                                                     .group_size = options_.group_size,
                                                     .grid = book_.grid,
                                                     .aux = options_.aux,
                                                     .has_zero = options_.shift == codebook_shift::mean},
                                                    "codebook");
    if (book_.grid == grid::custom) q.custom_levels = book_.levels;
    std::vector<float> unused(q.zero.empty() ? q.scale.size() : 0);
    block(w, {q.codes.data(), q.scale.data(), q.zero.empty() ? unused.data() : q.zero.data()});
    return q;
  }

  /// Quantizes some rows, of any number of groups.
  /// @pre w is finite and not empty
  /// @param ahead  elements from w to the weights that come next, 0 if they are not in memory
  void block(matrix_view<const float> w, const detail::rows_result& to, std::size_t ahead = 0) const {
    const detail::grouped_rows rows{w, options_.group_size, ahead};
    detail::run_wide<detail::group_range_loop>(rows, to.scale, to.zero);
    std::vector<float> mean(rows.all_groups());
    if (needs_mean()) detail::run_wide<detail::group_mean_loop>(rows, mean.data());
    fit({to.scale, mean.size()}, {to.zero, mean.size()}, mean);
    assign(rows, to);
  }

  /// Writes the code of the nearest level for each weight, under a given scale > 0 and zero point.
  void assign(std::span<const float> w, group_params fit, std::span<std::uint8_t> codes) const {
    SINQ_ASSERT(!w.empty() && codes.size() == w.size());
    assign({{w.data(), 1, w.size()}, w.size()}, {codes.data(), &fit.scale, &fit.zero});
  }

  /// For groups in lanes: see lane_quantizer.
  [[nodiscard]] bool takes_lanes() const { return true; }
  [[nodiscard]] bool needs_mean() const { return options_.shift == codebook_shift::mean; }
  /// Scales and zero points of groups whose weights reach from low to high, in their place. @pre all are finite
  /// @param mean  of each group, if needs_mean()
  void fit(std::span<float> low, std::span<float> high, std::span<const float> mean) const {
    const std::vector<float> no_means(needs_mean() ? 0 : low.size());
    const detail::codebook_fit_loop by{book_.levels.front(), book_.levels.back(),
                                       reach_ * detail::max_zero(options_.aux) / 8,
                                       needs_mean() && book_.levels[at_zero_] == 0 ? 1e-4f : 0.0f};
    detail::run_wide<detail::codebook_fit_loop>(by, low.data(), high.data(),
                                                needs_mean() ? mean.data() : no_means.data(), low.size());
    if (needs_mean())
      round_zeros(high);
    else
      std::fill(high.begin(), high.end(), 0.0f);
  }
  template <class Use>
  void with_grid(Use&& use) const {
    switch (grid_.count) {
    case 4: return use(detail::few_levels_grid<4>{grid_}, book_.levels[at_zero_]);
    case 8: return use(detail::few_levels_grid<8>{grid_}, book_.levels[at_zero_]);
    case 16: return use(detail::few_levels_grid<16>{grid_}, book_.levels[at_zero_]);
    default: return use(grid_, book_.levels[at_zero_]);
    }
  }

private:
  void assign(const detail::grouped_rows& rows, const detail::rows_result& to) const {
    with_grid([&](const auto& grid, float) {
      detail::run_wide<detail::nearest_loop<std::remove_cvref_t<decltype(grid)>>>(rows, grid, at_zero_, to);
    });
  }

  /// Zero points as they will be stored.
  void round_zeros(std::span<float> zero) const {
    std::vector<byte> stored(zero.size() * size_bytes(storage(options_.aux)));
    store_floats(zero, storage(options_.aux), stored.data());
    load_floats(stored.data(), storage(options_.aux), zero);
    for (float& value : zero) value += 0.0f; // no negative zero
  }

  codebook book_;
  codebook_options options_;
  float reach_; ///< max |level|
  detail::codebook_grid grid_;
  std::uint8_t at_zero_; ///< code of the level nearest to 0
};

/// NormalFloat4 quantization.
class nf4_quantizer : public codebook_quantizer {
public:
  nf4_quantizer(const codebook_options& options = {}) : codebook_quantizer{codebook::nf4(), options} {}
};

/// NormalFloat3 quantization.
class nf3_quantizer : public codebook_quantizer {
public:
  nf3_quantizer(const codebook_options& options = {}) : codebook_quantizer{codebook::nf3(), options} {}
};

} // namespace sinq
