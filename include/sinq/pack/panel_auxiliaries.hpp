#pragma once

#include "../core/wide.hpp"
#include "aux_codes.hpp"
#include "panels.hpp"

#include <algorithm>
#include <array>

namespace sinq {

namespace detail {

SINQ_SEPARATE_ROUNDING_BEGIN

/// Values of [count x 16] codes: offset + unit (code - origin), unit [16].
struct aux_panel_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const byte* codes, std::size_t count, const float* unit, float offset, float origin,
                              float* to) {
    for (std::size_t n = 0; n < count * panel_rows; n += W) {
      vec<std::uint8_t, W> stored;
      vec<float, W> step;
      load(codes + n, stored);
      load(unit + n % panel_rows, step);
      const vec<float, W> code =
          __builtin_convertvector(__builtin_convertvector(stored, vec<std::int32_t, W>), vec<float, W>);
      store(offset + step * (code - origin), to + n);
    }
  }
};

SINQ_SEPARATE_ROUNDING_END

/// Reads one panel of [G x 16] values that are stored as floats, or as bytes, as load_aux_row reads a row.
inline void load_aux_panel(const matrix_format& f, const shared_bytes& stored, const shared_bytes& base, int bits,
                           float offset, float origin, std::size_t panel, std::span<float> to) {
  const std::size_t aux = size_bytes(storage(f.aux));
  if (bits == 0) return load_floats(stored.data() + panel * to.size() * aux, storage(f.aux), to);
  const byte* const codes = stored.data() + panel * to.size();
  std::array<float, panel_rows> unit{};
  for (std::size_t begin = 0, end = 0; begin < f.groups(); begin = end) {
    const std::size_t super_group = f.super_group_of(begin);
    for (end = begin + 1; end < f.groups() && f.super_group_of(end) == super_group;) ++end;
    load_floats(base.data() + (panel * f.super_groups() + super_group) * panel_rows * aux, storage(f.aux), unit);
    run_wide<aux_panel_loop>(codes + begin * panel_rows, end - begin, unit.data(), offset, origin,
                             to.data() + begin * panel_rows);
  }
}

} // namespace detail

/// Scales and zero points of a panel as floats, however they are stored.
/// @param scale, zero  [G x 16], or empty: not wanted
inline void load_auxiliaries(const panel_matrix& w, std::size_t panel, std::span<float> scale, std::span<float> zero) {
  const matrix_format& f = w.format;
  SINQ_ASSERT(scale.empty() || scale.size() == f.groups() * panel_rows);
  SINQ_ASSERT(zero.empty() || zero.size() == f.groups() * panel_rows);
  if (!scale.empty()) detail::load_aux_panel(f, w.scale, w.scale_base, f.scale_bits, 0.0f, 0.0f, panel, scale);
  if (zero.empty()) return;
  if (!f.has_zero)
    std::fill(zero.begin(), zero.end(), f.symmetric_zero());
  else
    detail::load_aux_panel(f, w.zero, w.zero_base, f.zero_bits, f.symmetric_zero(),
                           f.zero_bits == 0 ? 0.0f : detail::zero_origin(f.zero_bits), panel, zero);
}

} // namespace sinq
