#pragma once

#include "../core/convert.hpp"
#include "../core/error.hpp"
#include "../quant/quantized_matrix.hpp"
#include "aux_codes.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

namespace sinq::detail {

/// True if all weights of a group are zero whatever its scale.
[[nodiscard]] inline bool is_zero_group(const quantized_matrix& q, std::size_t i, std::size_t g) {
  const auto codes = q.code_matrix().row(i).subspan(g * q.format.group_size, q.format.group_cols(g));
  const float zero = q.zero_at(i, g);
  const std::span<const float> levels = q.levels();
  return std::all_of(codes.begin(), codes.end(), [&](std::uint8_t code) { return levels[code] == zero; });
}

/// Smallest and largest scale of the groups g of one row tile, groups of zeros left aside; {0, 0} if there are no
/// others.
[[nodiscard]] inline storage_range scale_range(const quantized_matrix& q, std::size_t tile, std::size_t g) {
  const storage_range limits = range_of(storage(q.format.aux));
  storage_range found{std::numeric_limits<float>::max(), 0.0f};
  const std::size_t height = q.format.tile_height();
  for (std::size_t i = tile * height; i < std::min(q.format.rows, (tile + 1) * height); ++i) {
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

/// Moves the codes of a group to a coarser step: s (q - z) = s' (q' - z') to within s' / 2 + s / 2. The levels of a
/// codebook are not evenly spaced: there its codes are those nearest to s / s' times their old place, with the same
/// zero.
/// @return the new zero point
inline float coarsen(std::span<std::uint8_t> codes, float zero, float ratio, const matrix_format& format,
                     std::span<const float> levels) {
  if (format.grid != grid::uniform) {
    for (std::uint8_t& code : codes) {
      const float place = (levels[code] - zero) * ratio + zero;
      const auto nearer = [&](float a, float b) { return std::fabs(a - place) < std::fabs(b - place); };
      code = static_cast<std::uint8_t>(std::min_element(levels.begin(), levels.end(), nearer) - levels.begin());
    }
    return zero;
  }
  const auto position = [&](std::uint8_t code) { return (static_cast<float>(code) - zero) * ratio; };
  const float low = position(*std::min_element(codes.begin(), codes.end()));
  const float new_zero = format.has_zero ? std::nearbyint(-low) : format.symmetric_zero();
  const float top = static_cast<float>(max_code(format.bits));
  for (std::uint8_t& code : codes)
    code = static_cast<std::uint8_t>(std::clamp(std::nearbyint(position(code) + new_zero), 0.0f, top));
  return new_zero;
}

struct largest_code_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const std::uint8_t* codes, std::size_t n, std::uint8_t& largest) {
    constexpr std::size_t width = 4 * W;
    vec<std::uint8_t, width> some, most{};
    std::size_t k = 0;
    for (; k + width <= n; k += width) {
      load(codes + k, some);
      most = some > most ? some : most;
    }
    for (std::size_t lane = 0; lane < width; ++lane) largest = std::max<std::uint8_t>(largest, most[lane]);
    for (; k < n; ++k) largest = std::max(largest, codes[k]);
  }
};

/// Checks what the caller handed in: sizes, finite auxiliaries, codes within their width.
[[nodiscard]] inline result<void> check_quantized(const quantized_matrix& q) {
  const matrix_format& f = q.format;
  const std::size_t groups = f.rows * f.groups();
  const std::size_t bases = f.rows * f.super_groups();
  const std::size_t t = f.row_tiles() * f.cols;
  if (q.codes.size() != f.rows * f.cols || q.scale.size() != groups || q.zero.size() != (f.has_zero ? groups : 0) ||
      q.col_scale.size() != (f.has_col_scale ? t : 0))
    return make_error(errc::invalid_argument, "quantized_matrix: codes, scale, zero and t have ", q.codes.size(), ", ",
                      q.scale.size(), ", ", q.zero.size(), " and ", q.col_scale.size(), " entries for ", f.rows, " x ",
                      f.cols, " with group_size ", f.group_size);
  if (q.scale_base.size() != (f.scale_bits != 0 ? bases : 0) ||
      q.zero_base.size() != (f.has_zero && f.zero_bits != 0 ? bases : 0))
    return make_error(errc::invalid_argument, "quantized_matrix: scale_base and zero_base have ", q.scale_base.size(),
                      " and ", q.zero_base.size(), " entries, expected ", bases, " for each that is quantized");
  if (f.grid == grid::custom && q.custom_levels.size() != static_cast<std::size_t>(max_code(f.bits)) + 1)
    return make_error(errc::invalid_argument, "quantized_matrix: ", q.custom_levels.size(), " levels, expected ",
                      max_code(f.bits) + 1);
  for (const std::vector<float>* const values : {&q.scale_base, &q.zero_base, &q.custom_levels})
    for (const float value : *values)
      if (!is_finite(value))
        return make_error(errc::non_finite, "quantized_matrix: scale_base, zero_base or a level is not finite");
  for (std::size_t n = 0; n < groups; ++n)
    if (!is_finite(q.scale[n]) || (f.has_zero && !is_finite(q.zero[n])))
      return make_error(errc::non_finite, "quantized_matrix: scale or zero point of row ", n / f.groups(), ", group ",
                        n % f.groups(), " is not finite");
  for (std::size_t j = 0; j < q.col_scale.size(); ++j)
    if (!is_finite(q.col_scale[j]))
      return make_error(errc::non_finite, "quantized_matrix: t of column ", j % f.cols, " is not finite");
  std::uint8_t largest = 0;
  run_wide<largest_code_loop>(q.codes.data(), q.codes.size(), largest);
  for (std::size_t n = 0; largest > max_code(f.bits) && n < q.codes.size(); ++n)
    if (q.codes[n] > max_code(f.bits))
      return make_error(errc::invalid_argument, "quantized_matrix: code at row ", n / f.cols, ", column ", n % f.cols,
                        " is ", int{q.codes[n]}, ", expected at most ", max_code(f.bits));
  return {};
}

/// How far a value may lie from what its code stands for, relative to its base: roundings of f32 only.
inline constexpr float code_tolerance = 0x1p-10f;

/// Codes of values[n] = offset + base[n's super-group] (u - origin), packed as one stream.
[[nodiscard]] inline result<void> pack_aux_codes(const quantized_matrix& q, std::span<const float> values,
                                                 std::span<const float> bases, int bits, float offset, float origin,
                                                 std::string_view name, std::span<byte> to) {
  const matrix_format& f = q.format;
  const std::size_t groups = f.groups();
  std::vector<std::uint8_t> codes(values.size());
  for (std::size_t n = 0; n < values.size(); ++n) {
    const float base = bases[n / groups * f.super_groups() + f.super_group_of(n % groups)];
    const float place = base == 0 ? origin : (values[n] - offset) / base + origin;
    const float code = std::clamp(std::nearbyint(place), 0.0f, static_cast<float>(max_code(bits)));
    const float back = offset + base * (code - origin);
    if (as_stored(base, storage(f.aux)) != base ||
        !(std::fabs(back - values[n]) <= code_tolerance * std::max(std::fabs(base), std::fabs(back))))
      return make_error(errc::not_representable, "pack: ", name, " ", values[n], " of row ", n / groups, ", group ",
                        n % groups, " is none of those of ", bits, " bits over the base ", base);
    codes[n] = static_cast<std::uint8_t>(code);
  }
  with_layout(bits, [&](auto layout) { layout.pack_row(codes, to); });
  return {};
}

[[nodiscard]] inline result<void> pack_scale_codes(const quantized_matrix& q, std::span<byte> to) {
  return pack_aux_codes(q, q.scale, q.scale_base, q.format.scale_bits, 0.0f, 0.0f, "scale", to);
}

[[nodiscard]] inline result<void> pack_zero_codes(const quantized_matrix& q, std::span<byte> to) {
  return pack_aux_codes(q, q.zero, q.zero_base, q.format.zero_bits, q.format.symmetric_zero(),
                        zero_origin(q.format.zero_bits), "zero point", to);
}

} // namespace sinq::detail
