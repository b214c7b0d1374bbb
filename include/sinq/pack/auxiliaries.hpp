#pragma once

#include "../core/error.hpp"
#include "../quant/quantized_matrix.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

namespace sinq::detail {

/// Magnitudes that a type stores at full precision.
struct storage_range {
  float least; ///< smallest normal number
  float most;  ///< largest power of two
};

[[nodiscard]] constexpr storage_range range_of(dtype type) {
  return type == dtype::f16 ? storage_range{0x1p-14f, 0x1p15f} : storage_range{0x1p-126f, 0x1p127f};
}

/// True if all weights of a group are zero whatever its scale.
[[nodiscard]] inline bool is_zero_group(const quantized_matrix& q, std::size_t i, std::size_t g) {
  const auto codes = q.code_matrix().row(i).subspan(g * q.format.group_size, q.format.group_cols(g));
  const float zero = q.zero_at(i, g);
  return std::all_of(codes.begin(), codes.end(), [&](std::uint8_t code) { return static_cast<float>(code) == zero; });
}

/// Smallest and largest scale of one column of groups, groups of zeros left aside; {0, 0} if there are no others.
[[nodiscard]] inline storage_range scale_range(const quantized_matrix& q, std::size_t g) {
  const storage_range limits = range_of(storage(q.format.aux));
  storage_range found{std::numeric_limits<float>::max(), 0.0f};
  for (std::size_t i = 0; i < q.format.rows; ++i) {
    const float scale = std::fabs(q.scale[i * q.format.groups() + g]);
    const bool fits = scale >= limits.least && scale <= limits.most;
    if (scale == 0 || (!fits && is_zero_group(q, i, g))) continue;
    found = {std::min(found.least, scale), std::max(found.most, scale)};
  }
  return found.most == 0 ? storage_range{0, 0} : found;
}

/// Exponent k for one column of groups such that scale * 2^-k can be stored and t takes 2^k: the one nearest to 0 that
/// keeps the largest scale in range and, as far as that allows, the smallest too.
[[nodiscard]] inline int scale_shift(storage_range scales, storage_range limits) {
  if (scales.most == 0 || (scales.least >= limits.least && scales.most <= limits.most)) return 0;
  const int down = std::ilogb(scales.most) + 1 - std::ilogb(limits.most); // least k for the largest scale
  if (scales.most > limits.most) return down;
  return std::max(down, std::ilogb(scales.least) - std::ilogb(limits.least));
}

/// Moves the codes of a group to a coarser step: s (q - z) = s' (q' - z') to within s' / 2 + s / 2.
/// @return the new zero point
inline float coarsen(std::span<std::uint8_t> codes, float zero, float ratio, const matrix_format& format) {
  const auto position = [&](std::uint8_t code) { return (static_cast<float>(code) - zero) * ratio; };
  const float low = position(*std::min_element(codes.begin(), codes.end()));
  const float new_zero = format.has_zero ? std::nearbyint(-low) : format.symmetric_zero();
  const float top = static_cast<float>(max_code(format.bits));
  for (std::uint8_t& code : codes)
    code = static_cast<std::uint8_t>(std::clamp(std::nearbyint(position(code) + new_zero), 0.0f, top));
  return new_zero;
}

/// Checks what the caller handed in: sizes, finite auxiliaries, codes within their width.
[[nodiscard]] inline result<void> check_quantized(const quantized_matrix& q) {
  const matrix_format& f = q.format;
  const std::size_t groups = f.rows * f.groups();
  if (q.codes.size() != f.rows * f.cols || q.scale.size() != groups || q.zero.size() != (f.has_zero ? groups : 0) ||
      q.col_scale.size() != (f.has_col_scale ? f.cols : 0))
    return make_error(errc::invalid_argument, "quantized_matrix: codes, scale, zero and t have ", q.codes.size(), ", ",
                      q.scale.size(), ", ", q.zero.size(), " and ", q.col_scale.size(), " entries for ", f.rows, " x ",
                      f.cols, " with group_size ", f.group_size);
  for (std::size_t n = 0; n < groups; ++n)
    if (!is_finite(q.scale[n]) || (f.has_zero && !is_finite(q.zero[n])))
      return make_error(errc::non_finite, "quantized_matrix: scale or zero point of row ", n / f.groups(), ", group ",
                        n % f.groups(), " is not finite");
  for (std::size_t j = 0; j < q.col_scale.size(); ++j)
    if (!is_finite(q.col_scale[j]))
      return make_error(errc::non_finite, "quantized_matrix: t of column ", j, " is not finite");
  for (std::size_t n = 0; n < q.codes.size(); ++n)
    if (q.codes[n] > max_code(f.bits))
      return make_error(errc::invalid_argument, "quantized_matrix: code at row ", n / f.cols, ", column ", n % f.cols,
                        " is ", int{q.codes[n]}, ", expected at most ", max_code(f.bits));
  return {};
}

} // namespace sinq::detail
