#pragma once

#include "../panel.hpp"

#if SINQ_X86

#include <immintrin.h>

/// What the kernels of bytes on vectors of 512 bits share: how codes, scales and zero points of 16 rows are read.
namespace sinq::detail {

/// The levels of a codebook for bytes, or nothing, where _mm512_shuffle_epi8 looks them up.
template <bool Codebook>
SINQ_TARGET_AVX512 SINQ_INLINE __m512i level_table([[maybe_unused]] const panel_product& p) {
  if constexpr (Codebook)
    return _mm512_maskz_broadcast_i32x4(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p.byte_levels)));
  else
    return _mm512_setzero_si512();
}

/// The values that four columns of 16 rows stand for, a column a byte; see load_quad.
/// @param table  of level_table
template <int Bits, bool Codebook>
SINQ_TARGET_AVX512 SINQ_INLINE __m512i load_values(const byte* block, std::size_t half, std::size_t q,
                                                   const __m512i& table) {
  vec<std::uint32_t, 16> codes;
  load_quad<Bits, 16>(block, half, q, 0, codes);
  __m512i values;
  load(&codes, values);
  if constexpr (Codebook) values = _mm512_shuffle_epi8(table, values);
  return values;
}

/// Scales or zero points of 16 rows.
/// @param at, super  the places of the values and, of codes, of their bases
/// @tparam Codes     whether they may be codes
template <bool Codes>
SINQ_TARGET_AVX512 SINQ_INLINE void load_group(const panel_lanes& from, std::size_t at, std::size_t super,
                                               vec<float, 16>& to) {
  if (!Codes || from.codes == nullptr) return load_lanes<16>(from, at, to);
  const __m512i codes =
      _mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(from.codes + at)));
  const __m512 floats = _mm512_maskz_cvtepi32_ps(0xffff, codes);
  vec<float, 16> base;
  load(&floats, to);
  load(from.base + super, base);
  to *= base;
  if (from.offset == nullptr) return;
  load(from.offset + super, base);
  to += base;
}

/// Scales and zero points of 16 rows of panel n; see load_group.
/// @param lanes  their place in the first panel
template <bool Codebook, bool Codes>
SINQ_TARGET_AVX512 SINQ_INLINE void load_groups(const panel_product& p, std::size_t lanes, std::size_t n,
                                                vec<float, 16>& scale, vec<float, 16>& zero) {
  const std::size_t at = lanes + n * p.aux_apart;
  const bool coded = Codes && (p.scale.codes != nullptr || p.zero.codes != nullptr);
  const std::size_t super = coded ? lanes / p.super_lanes * panel_rows + n * p.super_apart : 0;
  load_group<Codes>(p.scale, at, super, scale);
  load_group<Codes>(p.zero, at, super, zero);
  if constexpr (Codebook) { // other forms are adapted already
    if (p.scale.halves != nullptr) scale_to_bytes(p.most_level, scale);
    if (p.zero.halves != nullptr) zero_to_bytes(p.most_level, zero);
  }
}

} // namespace sinq::detail

#endif
