#pragma once

#include "../core/convert.hpp"
#include "grids.hpp"
#include "group_loops.hpp"
#include "quantizer.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

namespace sinq {

/// Options of round-to-nearest.
struct rtn_options {
  std::size_t group_size = 64;
  bool symmetric = false; ///< no zero point is stored: the grid is centred on 0 and uses all its levels
  zero_mode zero = zero_mode::rounded;
  aux_dtype aux = aux_dtype::f16; ///< bounds the zero points: see rtn_quantizer
  bool noz = false; ///< the reference's symmetric grid, whose zero points are stored and all the same: see rtn
};

/// Scale and zero point of one group.
struct group_params {
  float scale;
  float zero;
};

namespace detail {

/// The largest zero point of that storage type whose neighbours a step away are still told apart.
/// f32 could hold more, but code arithmetic w / scale + zero needs a few bits behind the point.
[[nodiscard]] constexpr float max_zero(aux_dtype aux) {
  switch (aux) {
  case aux_dtype::f16: return 0x1p11f;
  case aux_dtype::bf16: return 0x1p8f;
  case aux_dtype::f32: break;
  }
  return 0x1p22f;
}

struct value_range {
  float low;
  float high;
};

/// The smallest and largest of some weights; which zero, if both are there, is not said.
/// @pre not empty, no NaN
[[nodiscard]] inline value_range low_and_high(std::span<const float> w) {
  value_range found{w[0], w[0]};
  run_wide<widen_loop<float>>(w.data(), w.size(), found.low, found.high);
  return found;
}

/// Scales and zero points of round to nearest, in place of the smallest and largest weight of each group.
struct rtn_fit_loop {
  float levels;       ///< 2^b - 1
  float per_max_zero; ///< 1 / max_zero(aux)
  bool symmetric;
  bool rounded;

  template <std::size_t W>
  SINQ_INLINE static void run(const rtn_fit_loop& by, float* low, float* high, std::size_t n) {
    std::size_t k = 0;
    for (; k + W <= n; k += W) find<W>(by, low + k, high + k);
    for (; k < n; ++k) find<1>(by, low + k, high + k);
  }

private:
  template <std::size_t W>
  SINQ_INLINE static void find(const rtn_fit_loop& by, float* lows, float* highs) {
    vec<float, W> low, high, scale, zero;
    load(lows, low);
    load(highs, high);
    const vec<float, W> most = -low < high ? high : -low; // max |w|
    const vec<float, W> least = vec<float, W>{} + std::numeric_limits<float>::min();
    if (by.symmetric) {
      zero = vec<float, W>{} + by.levels * 0.5f;
      scale = most / zero;
      scale = scale < least ? least : scale;
      scale = most == 0.0f ? vec<float, W>{} : scale;
    } else {
      const vec<float, W> range = high - low, coarsest = most * by.per_max_zero;
      scale = range <= std::numeric_limits<float>::max() ? range / by.levels : high / by.levels - low / by.levels;
      scale = scale < coarsest ? coarsest : scale;
      scale = scale < least ? least : scale;
      zero = -(low / scale);
      if (by.rounded) zero = (zero + 0x1.8p23f) - 0x1.8p23f;
      scale = most == 0.0f ? vec<float, W>{} + 1e-4f / by.levels : scale;
      zero = most == 0.0f ? vec<float, W>{} : zero;
    }
    store(scale, lows);
    store(zero, highs);
  }
};

} // namespace detail

/// Uniform quantization of each group to the nearest of 2^b levels between its smallest and largest weight.
/// asymmetric: s = (hi - lo) / (2^b - 1), z = -round(lo / s), q = clamp(round(w / s + z), 0, 2^b - 1)
/// symmetric:  s = max|w| / ((2^b - 1) / 2), z = (2^b - 1) / 2, the same q: levels at -z s, (1 - z) s .. z s
/// noz:        s = max|w| / m, m = max(1, floor((2^b - 1) / 2) - 1), z = floor((2^b - 1) / 2), q = round(w / s) + z:
///             the levels -m s .. m s, fewer than there are codes; for results equal to the reference's
/// Every weight comes back within half a step and the rounding of w / s + z in f32:
/// |w - s (q - z)| <= s (1/2 + 2^-23 max(|z|, 2^b - 1)).
/// Rounding is half to even. Unlike the reference there is no absolute floor of 1e-4 on hi - lo, which wipes small
/// weights out; instead s is at least max|w| over the largest zero point that `aux` can hold (2048 for f16), so that a
/// group far from zero, or constant, is held as precisely as its auxiliaries are. A group of zeros gets the reference's
/// s = 1e-4 / (2^b - 1), or 0 if symmetric, or 1e-5 / m. Where the reference's floor does not act, results are those of
/// the reference. Numerics: f32, in the reference's order of operations; no overflow for any finite input. Source:
/// huawei-csl/SINQ sinq/dual_shift.py (quantize_rtn, quantize_symmetric_rtn).
class rtn {
public:
  static constexpr bool row_independent = true;

  /// @pre is_supported_bits(bits)
  explicit rtn(int bits, const rtn_options& options = {})
      : bits_{bits}, levels_{static_cast<float>(max_code(bits))}, options_{options} {
    SINQ_ASSERT(is_supported_bits(bits));
  }

  [[nodiscard]] int bits() const { return bits_; }
  [[nodiscard]] std::size_t group_size() const { return options_.group_size; }
  [[nodiscard]] const rtn_options& options() const { return options_; }

  /// @param w  [N x K], finite
  /// @errors   errc::empty_matrix, errc::invalid_argument (group_size 0)
  [[nodiscard]] result<quantized_matrix> operator()(matrix_view<const float> w) const {
    if (w.empty()) return make_error(errc::empty_matrix, "rtn: the matrix is ", w.rows(), " x ", w.cols());
    if (options_.group_size == 0) return make_error(errc::invalid_argument, "rtn: group_size is 0, expected >= 1");
    quantized_matrix q = quantized_matrix::allocate({.rows = w.rows(),
                                                     .cols = w.cols(),
                                                     .bits = bits_,
                                                     .group_size = options_.group_size,
                                                     .aux = options_.aux,
                                                     .has_zero = options_.noz || !options_.symmetric},
                                                    "rtn");
    std::vector<float> unused(q.zero.empty() ? q.scale.size() : 0);
    block(w, {q.codes.data(), q.scale.data(), q.zero.empty() ? unused.data() : q.zero.data()});
    return q;
  }

  /// Quantizes some rows, of any number of groups.
  /// @pre w is finite and not empty
  /// @param ahead  elements from w to the weights that come next, 0 if they are not in memory
  void block(matrix_view<const float> w, const detail::rows_result& to, std::size_t ahead = 0) const {
    const detail::grouped_rows rows{w, options_.group_size, ahead};
    const std::size_t groups = rows.all_groups();
    detail::run_wide<detail::group_range_loop>(rows, to.scale, to.zero);
    if (options_.noz) return assign_noz(rows, to);
    fit({to.scale, groups}, {to.zero, groups});
    detail::run_wide<detail::nearest_loop<detail::uniform_grid>>(rows, detail::uniform_grid{levels_},
                                                                 static_cast<std::uint8_t>(max_code(bits_) / 2), to);
  }

  /// Quantizes one group: writes a code for each weight, returns scale and zero point.
  /// @pre w is finite, not empty, no longer than a group, and codes is as long
  group_params group(std::span<const float> w, std::span<std::uint8_t> codes) const {
    SINQ_ASSERT(!w.empty() && codes.size() == w.size() && w.size() <= options_.group_size);
    SINQ_ASSERT(std::all_of(w.begin(), w.end(), [](float value) { return is_finite(value); }));
    group_params found{};
    block({w.data(), 1, w.size()}, {codes.data(), &found.scale, &found.zero});
    return found;
  }

  /// Scales and zero points of groups whose weights reach from low to high, in their place.
  /// @pre all are finite, and not noz
  void fit(std::span<float> low, std::span<float> high) const {
    SINQ_ASSERT(!options_.noz && low.size() == high.size());
    const bool rounded = options_.zero == zero_mode::rounded;
    detail::run_wide<detail::rtn_fit_loop>(
        detail::rtn_fit_loop{levels_, 1 / detail::max_zero(options_.aux), options_.symmetric, rounded}, low.data(),
        high.data(), low.size());
    if (!rounded && !options_.symmetric)
      for (float& zero : high) zero = detail::as_stored(zero, storage(options_.aux)) + 0.0f; // + 0: no negative zero
  }

  /// For groups in lanes: see lane_quantizer.
  [[nodiscard]] bool takes_lanes() const { return !options_.noz; }
  [[nodiscard]] bool needs_mean() const { return false; }
  void fit(std::span<float> low, std::span<float> high, std::span<const float>) const { fit(low, high); }
  template <class Use>
  void with_grid(Use&& use) const {
    const int middle = max_code(bits_) / 2;
    use(detail::uniform_grid{levels_}, static_cast<float>(middle));
  }

private:
  /// Codes, scales and zero points of the reference's symmetric grid, in place of the smallest and largest weights.
  void assign_noz(const detail::grouped_rows& rows, const detail::rows_result& to) const {
    const int middle = max_code(bits_) / 2;
    const auto steps = static_cast<float>(std::max(1, middle - 1));
    for (std::size_t n = 0; n < rows.all_groups(); ++n) {
      const float most = std::max(-to.scale[n], to.zero[n]);
      to.scale[n] = most == 0 ? 1e-5f / steps : std::max(most / steps, std::numeric_limits<float>::min());
      to.zero[n] = 0;
    }
    detail::run_wide<detail::nearest_loop<detail::centred_grid>>(rows, detail::centred_grid{middle}, std::uint8_t{0},
                                                                 to);
    std::fill_n(to.zero, rows.all_groups(), static_cast<float>(middle));
  }

  int bits_;
  float levels_;
  rtn_options options_;
};

/// Round to nearest with a width that is known at compile time; all else is as in `rtn`.
template <int Bits>
class rtn_quantizer : public rtn {
  static_assert(is_supported_bits(Bits), "rtn_quantizer: bits must be 2, 3, 4, 5, 6 or 8");

public:
  rtn_quantizer(const rtn_options& options = {}) : rtn{Bits, options} {}
};

} // namespace sinq
