#pragma once

#include "../panel.hpp"

#if SINQ_X86

#include <immintrin.h>

namespace sinq::detail {

/// Scales or zero points of 16 rows, from where panel_product has them.
/// @param halves  of f16, or nullptr: floats have them
SINQ_TARGET_AVX512 SINQ_INLINE void load_lanes(const float* floats, const byte* halves, std::size_t at,
                                               vec<float, 16>& to) {
  if (halves == nullptr) return load(floats + at, to);
  const __m512 lanes = _mm512_maskz_cvtph_ps(
      0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves + at * sizeof(float16))));
  load(&lanes, to);
}

} // namespace sinq::detail

#endif
