#pragma once

#include "../core/wide.hpp"
#include "aux_codes.hpp"
#include "panels.hpp"

#include <algorithm>

namespace sinq {

namespace detail {

SINQ_SEPARATE_ROUNDING_BEGIN

/// Values of [G x 16] codes: offset + unit (code - origin), unit being a row of base [G / super_group x 16].
/// @tparam T  what base is stored as
template <class T>
struct aux_panel_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const byte* codes, std::size_t groups, std::size_t super_group, const byte* base,
                              float offset, float origin, float* to) {
    for (std::size_t begin = 0; begin < groups; begin += super_group, base += panel_rows * sizeof(T)) {
      const std::size_t end = std::min(begin + super_group, groups);
      for (std::size_t lane = 0; lane < panel_rows; lane += W) {
        vec<float, W> unit;
        load_vector<T, W>(base + lane * sizeof(T), unit);
        for (std::size_t n = begin * panel_rows + lane; n < end * panel_rows; n += panel_rows) {
          vec<std::uint8_t, W> stored;
          load(codes + n, stored);
          // by way of 16 bits, without which g++ takes element by element
          const vec<std::uint16_t, W> wider = __builtin_convertvector(stored, vec<std::uint16_t, W>);
          const vec<float, W> code =
              __builtin_convertvector(__builtin_convertvector(wider, vec<std::int32_t, W>), vec<float, W>);
          store(offset + unit * (code - origin), to + n);
        }
      }
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
  const byte* const bases = base.data() + panel * f.super_groups() * panel_rows * aux;
  const std::size_t super_group = f.super_group == 0 ? f.groups() : f.super_group;
  switch (f.aux) {
  case aux_dtype::f16:
    return run_wide<aux_panel_loop<float16>>(codes, f.groups(), super_group, bases, offset, origin, to.data());
  case aux_dtype::bf16:
    return run_wide<aux_panel_loop<bfloat16>>(codes, f.groups(), super_group, bases, offset, origin, to.data());
  case aux_dtype::f32:
    return run_wide<aux_panel_loop<float>>(codes, f.groups(), super_group, bases, offset, origin, to.data());
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
