#pragma once

#include "../core/convert.hpp"
#include "layout.hpp"

#include <algorithm>
#include <span>
#include <vector>

namespace sinq {

namespace detail {

/// Reads row i of [N x G] values that are stored as floats, or as codes of a stream.
///   bits = 0:  value[g] = stored[i][g]
///   else:      value[g] = offset + base[i][g / super_group] * (u[i][g] - origin)
inline void load_aux_row(const matrix_format& f, const shared_bytes& stored, const shared_bytes& base, int bits,
                         float offset, float origin, std::size_t i, std::span<float> to) {
  const std::size_t aux = size_bytes(storage(f.aux));
  if (bits == 0) return load_floats(stored.data() + i * to.size() * aux, storage(f.aux), to);
  const std::size_t supers = f.super_groups();
  float unit = 0;
  std::size_t loaded = supers;
  for (std::size_t g = 0; g < to.size(); ++g) {
    if (f.super_group_of(g) != loaded) {
      loaded = f.super_group_of(g);
      load_floats(base.data() + (i * supers + loaded) * aux, storage(f.aux), {&unit, 1});
    }
    const auto code = with_layout(bits, [&](auto layout) { return layout.code(stored.span(), i * to.size() + g); });
    to[g] = offset + unit * (static_cast<float>(code) - origin);
  }
}

/// The code whose zero point is the middle of the grid.
[[nodiscard]] constexpr float zero_origin(int zero_bits) {
  return static_cast<float>(1 << (zero_bits - 1));
}

} // namespace detail

/// Scales and zero points of row i as floats, however they are stored.
/// @param scale, zero  [G]
inline void load_auxiliaries(const packed_matrix& p, std::size_t i, std::span<float> scale, std::span<float> zero) {
  const matrix_format& f = p.format;
  SINQ_ASSERT(i < f.rows && scale.size() == f.groups() && zero.size() == f.groups());
  detail::load_aux_row(f, p.scale, p.scale_base, f.scale_bits, 0.0f, 0.0f, i, scale);
  if (!f.has_zero)
    std::fill(zero.begin(), zero.end(), f.symmetric_zero());
  else
    detail::load_aux_row(f, p.zero, p.zero_base, f.zero_bits, f.symmetric_zero(),
                         f.zero_bits == 0 ? 0.0f : detail::zero_origin(f.zero_bits), i, zero);
}

/// The stored levels of grid::custom, or nothing.
/// @param stored  the levels of a packed_matrix or a panel_matrix
[[nodiscard]] inline std::vector<float> custom_levels(const shared_bytes& stored) {
  std::vector<float> values(stored.size() / sizeof(float));
  load_floats(stored.data(), dtype::f32, values);
  return values;
}

} // namespace sinq
