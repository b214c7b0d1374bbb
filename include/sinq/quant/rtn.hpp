#pragma once

#include "../core/convert.hpp"
#include "grids.hpp"
#include "quantizer.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

namespace sinq {

/// How the zero point of an asymmetric group is chosen.
enum class zero_mode : std::uint8_t {
  rounded,    ///< an integer, so that a weight of zero stays zero (the reference)
  fractional, ///< exactly where the smallest weight falls on code 0
};

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

/// Codes of the levels nearest to w / s + z.
template <class Grid>
struct nearest_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const float* w, std::size_t n, const group_params& fit, const Grid& grid,
                              std::uint8_t* codes) {
    vec<float, W> x;
    vec<std::int32_t, W> code;
    std::size_t k = 0;
    for (; k + W <= n; k += W) {
      load(w + k, x);
      grid.find_codes(x / fit.scale + fit.zero, code);
      store(__builtin_convertvector(code, vec<std::uint8_t, W>), codes + k);
    }
    for (; k < n; ++k) codes[k] = grid.code(w[k] / fit.scale + fit.zero);
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

  /// @param w  [N x K], finite (SINQ_ASSERT in group())
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
    for (std::size_t i = 0; i < w.rows(); ++i) detail::quantize_groups(*this, w.row(i), i, q);
    return q;
  }

  /// Quantizes one group: writes a code for each weight, returns scale and zero point.
  /// @pre w is finite, not empty, and codes is as long
  group_params group(std::span<const float> w, std::span<std::uint8_t> codes) const {
    SINQ_ASSERT(!w.empty() && codes.size() == w.size());
    SINQ_ASSERT(std::all_of(w.begin(), w.end(), [](float value) { return is_finite(value); }));
    const auto [low, high] = detail::low_and_high(w);
    if (options_.noz) return assign_noz(w, std::max(-low, high), codes);
    const group_params fit = this->fit(low, high);
    if (fit.scale == 0) {
      std::fill(codes.begin(), codes.end(), static_cast<std::uint8_t>(max_code(bits_) / 2));
      return fit;
    }
    detail::run_wide<detail::nearest_loop<detail::uniform_grid>>(w.data(), w.size(), fit, detail::uniform_grid{levels_},
                                                                 codes.data());
    return fit;
  }

  /// Scale and zero point of a group whose weights reach from low to high. @pre both are finite, and not noz
  [[nodiscard]] group_params fit(float low, float high) const {
    SINQ_ASSERT(!options_.noz);
    return options_.symmetric ? fit_symmetric(low, high) : fit_asymmetric(low, high);
  }

private:
  [[nodiscard]] group_params fit_asymmetric(float low, float high) const {
    const float most = std::max(-low, high); // max |w|
    if (most == 0) return {1e-4f / levels_, 0.0f};
    const float range = high - low;
    const float step = is_finite(range) ? range / levels_ : high / levels_ - low / levels_;
    const float scale = std::max({step, most / detail::max_zero(options_.aux), std::numeric_limits<float>::min()});
    const float zero = -(low / scale);
    if (options_.zero == zero_mode::fractional) return {scale, detail::as_stored(zero, storage(options_.aux)) + 0.0f};
    return {scale, std::nearbyint(zero) + 0.0f}; // + 0: no negative zero
  }

  [[nodiscard]] group_params fit_symmetric(float low, float high) const {
    const float most = std::max(-low, high);
    if (most == 0) return {0.0f, levels_ * 0.5f};
    return {std::max(most / (levels_ * 0.5f), std::numeric_limits<float>::min()), levels_ * 0.5f};
  }

  /// Codes, scale and zero point of the reference's symmetric grid. Adding 1.5 * 2^23 leaves the nearest integer, half
  /// to even, in the low mantissa bits, for negative values too.
  group_params assign_noz(std::span<const float> w, float most, std::span<std::uint8_t> codes) const {
    const auto middle = static_cast<std::uint32_t>(max_code(bits_) / 2);
    const auto steps = static_cast<float>(std::max(1, max_code(bits_) / 2 - 1));
    const float scale = most == 0 ? 1e-5f / steps : std::max(most / steps, std::numeric_limits<float>::min());
    for (std::size_t k = 0; k < w.size(); ++k)
      codes[k] = static_cast<std::uint8_t>((std::bit_cast<std::uint32_t>(w[k] / scale + 0x1.8p23f) + middle) & 0xffu);
    return {scale, static_cast<float>(middle)};
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
