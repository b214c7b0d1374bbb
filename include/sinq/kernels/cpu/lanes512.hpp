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

/// Scales and zero points of 16 rows from a place on, from where panel_product has them.
template <bool Codebook>
SINQ_TARGET_AVX512 SINQ_INLINE void load_groups(const panel_product& p, std::size_t at, vec<float, 16>& scale,
                                                vec<float, 16>& zero) {
  load_lanes<16>(p.scale, p.half_scale, at, scale);
  load_lanes<16>(p.zero, p.half_zero, at, zero);
  if constexpr (Codebook) { // floats are adapted already
    if (p.half_scale != nullptr) scale_to_bytes(p.most_level, scale);
    if (p.half_zero != nullptr) zero_to_bytes(p.most_level, zero);
  }
}

} // namespace sinq::detail

#endif
