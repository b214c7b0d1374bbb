#pragma once

#include "../core/types.hpp"
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

/// Value as its storage type holds it.
[[nodiscard]] inline float round_to(aux_dtype aux, float value) {
  switch (aux) {
  case aux_dtype::f16: return static_cast<float>(static_cast<float16>(value));
  case aux_dtype::bf16: return static_cast<float>(static_cast<bfloat16>(value));
  case aux_dtype::f32: break;
  }
  return value;
}

} // namespace detail

/// Uniform quantization of each group to the nearest of 2^b levels between its smallest and largest weight.
/// asymmetric: s = (hi - lo) / (2^b - 1), z = -round(lo / s), q = clamp(round(w / s + z), 0, 2^b - 1)
/// symmetric:  s = max|w| / ((2^b - 1) / 2), z = (2^b - 1) / 2, the same q: levels at -z s, (1 - z) s .. z s
/// Every weight comes back within half a step and the rounding of w / s + z in f32:
/// |w - s (q - z)| <= s (1/2 + 2^-23 max(|z|, 2^b - 1)).
/// Rounding is half to even. Unlike the reference there is no absolute floor of 1e-4 on hi - lo, which wipes small
/// weights out; instead s is at least max|w| over the largest zero point that `aux` can hold (2048 for f16), so that a
/// group far from zero, or constant, is held as precisely as its auxiliaries are. A group of zeros gets the reference's
/// s = 1e-4 / (2^b - 1), or 0 if symmetric. Where the reference's floor does not act, results are those of the
/// reference. Numerics: f32, in the reference's order of operations; no overflow for any finite input. Source:
/// huawei-csl/SINQ sinq/dual_shift.py (rtn).
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
                                                     .has_zero = !options_.symmetric},
                                                    "rtn");
    const std::size_t groups = q.format.groups();
    for (std::size_t i = 0; i < w.rows(); ++i)
      for (std::size_t g = 0; g < groups; ++g) {
        const std::size_t begin = g * options_.group_size;
        const std::size_t count = q.format.group_cols(g);
        const group_params fit =
            group(w.row(i).subspan(begin, count), q.codes.span().subspan(i * w.cols() + begin, count));
        q.scale[i * groups + g] = fit.scale;
        if (q.format.has_zero) q.zero[i * groups + g] = fit.zero;
      }
    return q;
  }

  /// Quantizes one group: writes a code for each weight, returns scale and zero point.
  /// @pre w is finite, not empty, and codes is as long
  group_params group(std::span<const float> w, std::span<std::uint8_t> codes) const {
    SINQ_ASSERT(!w.empty() && codes.size() == w.size());
    float low = w[0];
    float high = w[0];
    for (const float value : w) {
      SINQ_ASSERT(is_finite(value));
      low = std::min(low, value);
      high = std::max(high, value);
    }
    const group_params fit = options_.symmetric ? fit_symmetric(low, high) : fit_asymmetric(low, high);
    if (fit.scale == 0) {
      std::fill(codes.begin(), codes.end(), static_cast<std::uint8_t>(max_code(bits_) / 2));
      return fit;
    }
    for (std::size_t k = 0; k < w.size(); ++k) codes[k] = nearest_code(w[k] / fit.scale + fit.zero);
    return fit;
  }

private:
  [[nodiscard]] group_params fit_asymmetric(float low, float high) const {
    const float most = std::max(-low, high); // max |w|
    if (most == 0) return {1e-4f / levels_, 0.0f};
    const float range = high - low;
    const float step = is_finite(range) ? range / levels_ : high / levels_ - low / levels_;
    const float scale = std::max({step, most / detail::max_zero(options_.aux), std::numeric_limits<float>::min()});
    const float zero = -(low / scale);
    if (options_.zero == zero_mode::fractional) return {scale, detail::round_to(options_.aux, zero)};
    return {scale, std::nearbyint(zero) + 0.0f}; // + 0: no negative zero
  }

  [[nodiscard]] group_params fit_symmetric(float low, float high) const {
    const float most = std::max(-low, high);
    if (most == 0) return {0.0f, levels_ * 0.5f};
    return {std::max(most / (levels_ * 0.5f), std::numeric_limits<float>::min()), levels_ * 0.5f};
  }

  /// Nearest integer, half to even, of a value clamped to the codes: adding 2^23 leaves it in the low mantissa bits.
  [[nodiscard]] std::uint8_t nearest_code(float position) const {
    const float clamped = std::min(std::max(position, 0.0f), levels_);
    return static_cast<std::uint8_t>(std::bit_cast<std::uint32_t>(clamped + 0x1p23f) & 0xffu);
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
