#pragma once

#include "../core/levels.hpp"
#include "../math/stats.hpp"
#include "grids.hpp"
#include "rtn.hpp"

#include <utility>

namespace sinq {

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

  /// @param w  [N x K], finite (SINQ_ASSERT in group())
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
    for (std::size_t i = 0; i < w.rows(); ++i) detail::quantize_groups(*this, w.row(i), i, q);
    return q;
  }

  /// Quantizes one group: writes a code for each weight, returns scale and zero point.
  /// @pre w is finite, not empty, and codes is as long
  group_params group(std::span<const float> w, std::span<std::uint8_t> codes) const {
    SINQ_ASSERT(!w.empty() && codes.size() == w.size());
    const group_params fit = fit_group(w);
    if (fit.scale == 0)
      std::fill(codes.begin(), codes.end(), at_zero_);
    else
      assign(w, fit, codes);
    return fit;
  }

  /// Writes the code of the nearest level for each weight, under a given scale > 0 and zero point.
  void assign(std::span<const float> w, group_params fit, std::span<std::uint8_t> codes) const {
    if (book_.bits <= 4)
      detail::run_wide<detail::nearest_loop<detail::codebook_grid>>(w.data(), w.size(), fit, grid_, codes.data());
    else
      for (std::size_t k = 0; k < w.size(); ++k) codes[k] = grid_.code(w[k] / fit.scale + fit.zero);
  }

private:
  [[nodiscard]] static float mean_of(std::span<const float> w) {
    detail::lane_sums sum{};
    std::size_t k = 0;
    for (; k + sum.size() <= w.size(); k += sum.size())
      for (std::size_t lane = 0; lane < sum.size(); ++lane) sum[lane] += static_cast<double>(w[k + lane]);
    for (std::size_t lane = 0; k + lane < w.size(); ++lane) sum[lane] += static_cast<double>(w[k + lane]);
    return static_cast<float>(detail::add_lanes(sum) / static_cast<double>(w.size()));
  }

  [[nodiscard]] group_params fit_group(std::span<const float> w) const {
    SINQ_ASSERT(std::all_of(w.begin(), w.end(), [](float value) { return is_finite(value); }));
    const auto [low, high] = detail::low_and_high(w);
    const bool shifted = options_.shift == codebook_shift::mean;
    const float most = std::max(-low, high); // max |w|
    if (most == 0) return {shifted && book_.levels[at_zero_] == 0 ? 1e-4f : 0.0f, 0.0f};
    const float mean = shifted ? mean_of(w) : 0.0f;
    const double above =
        (static_cast<double>(high) - static_cast<double>(mean)) / static_cast<double>(book_.levels.back());
    const double below =
        (static_cast<double>(low) - static_cast<double>(mean)) / static_cast<double>(book_.levels.front());
    const double step = std::max({above, below, static_cast<double>(std::numeric_limits<float>::min())});
    float scale = static_cast<float>(std::min(step, static_cast<double>(std::numeric_limits<float>::max())));
    if (!shifted) return {scale, 0.0f};
    scale = std::max(scale, std::fabs(mean) / (reach_ * detail::max_zero(options_.aux) / 8));
    return {scale, detail::as_stored(-mean / scale, storage(options_.aux)) + 0.0f}; // + 0: no negative zero
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
