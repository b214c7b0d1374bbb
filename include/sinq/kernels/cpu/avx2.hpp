#pragma once

#include "../panel.hpp"

#if SINQ_X86

#include <immintrin.h>

/// The kernel of bytes on AVX2: products of bytes are added in pairs to 16 bits, then in pairs to 32.
namespace sinq::detail::avx2 {

/// dot + values . x, four products a lane. Codes of up to 6 bits fit: 2 * 63 * 127 < 2^15. Wider values v are taken as
/// 16 (v / 16) + v % 16.
template <bool Wide>
SINQ_TARGET_AVX2 SINQ_INLINE __m256i add_dot(__m256i dot, __m256i values, __m256i x) {
  const __m256i ones = _mm256_set1_epi16(1);
  if constexpr (!Wide) return _mm256_add_epi32(dot, _mm256_madd_epi16(_mm256_maddubs_epi16(values, x), ones));
  const __m256i low_mask = _mm256_set1_epi8(15);
  const __m256i low = _mm256_and_si256(values, low_mask);
  const __m256i high = _mm256_and_si256(_mm256_srli_epi16(values, 4), low_mask);
  dot = _mm256_add_epi32(dot, _mm256_madd_epi16(_mm256_maddubs_epi16(low, x), ones));
  return _mm256_add_epi32(dot, _mm256_madd_epi16(_mm256_maddubs_epi16(high, x), _mm256_set1_epi16(16)));
}

/// Adds steps [begin, end) to y of T tokens, 8 rows from `lane`.
template <int Bits, bool Codebook, int Step, int T>
SINQ_TARGET_AVX2 void multiply_tokens(const panel_product& p, std::size_t token, std::size_t lane, std::size_t begin,
                                      std::size_t end) {
  constexpr bool wide = Codebook || Bits == 8;
  __m256i table = _mm256_setzero_si256();
  if constexpr (Codebook)
    for (int part = 0; part < 2; ++part)
      __builtin_memcpy(reinterpret_cast<char*>(&table) + 16 * part, p.byte_levels, 16);
  float* const y = p.y + token * panel_rows + lane;
  for (std::size_t step = begin; step < end; ++step) {
    __m256i dot[T];
    for (__m256i& sum : dot) sum = _mm256_setzero_si256();
    const std::size_t sums = sum_index({token, T}, step, p.steps);
    const std::int8_t* const x = p.bytes + sums * Step;
    const byte* const block = p.codes + step * Step / block_cols * block_bytes(Bits);
#pragma GCC unroll 1
    for (std::size_t part = 0; part < Step; part += 32) {
      const std::size_t half = (step * Step + part) % block_cols / 32;
      if (lane == 0) prefetch_half<Bits, 1>(p, block, half);
#pragma GCC unroll 8
      for (int q = 0; q < 8; ++q) {
        vec<std::uint32_t, 8> codes;
        load_quad<Bits, 8>(block, half, static_cast<std::size_t>(q), lane, codes);
        __m256i values;
        load(&codes, values);
        if constexpr (Codebook) values = _mm256_shuffle_epi8(table, values);
#pragma GCC unroll 8
        for (int m = 0; m < T; ++m) {
          std::int32_t four;
          load(x + static_cast<std::size_t>(m * Step + 4 * q) + part, four);
          dot[m] = add_dot<wide>(dot[m], values, _mm256_set1_epi32(four));
        }
      }
    }
    const std::size_t group = step * Step / p.group_size * panel_rows + lane;
    vec<float, 8> s, z;
    load(p.scale.floats + group, s);
    load(p.zero.floats + group, z);
    for (int m = 0; m < T; ++m) {
      const std::size_t at = sums + static_cast<std::size_t>(m);
      add_step<8>(s, z, dot[m], p.unit[at], p.sum[at], y + m * 16);
    }
  }
}

/// @see multiply_strips
template <int Bits, bool Codebook, int Step>
struct kernel {
  static constexpr bool pairs = false;
  template <std::size_t T, std::size_t P>
  static void run(const panel_product& p, std::size_t token, std::size_t begin, std::size_t end) {
    for (std::size_t lane = 0; lane < panel_rows; lane += 8)
      multiply_tokens<Bits, Codebook, Step, static_cast<int>(T)>(p, token, lane, begin, end);
  }
};

} // namespace sinq::detail::avx2

#endif
