#pragma once

#include "lanes512.hpp"

#if SINQ_X86

#include <immintrin.h>

#define SINQ_TARGET_VNNI __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))

/// The kernel of bytes with the dot products of AVX-512 VNNI: 16 rows at a time, four columns an instruction.
namespace sinq::detail::vnni {

/// Whether a processor with the AVX-512 of isa::avx512 has VNNI too.
[[nodiscard]] inline bool has_dot_products() {
  return __builtin_cpu_supports("avx512vnni") != 0;
}

/// Adds steps [begin, end) to y of T tokens and P panels. Few tokens have two sums each, of even and odd quads, that do
/// not wait for each other; they wait for memory.
template <int Bits, bool Codebook, int Step, int T, int P>
SINQ_TARGET_VNNI void multiply_tokens(const panel_product& p, std::size_t token, std::size_t begin, std::size_t end) {
  constexpr bool few = T * P <= 8;
  constexpr int chains = few ? 2 : 1;
  const __m512i table = level_table<Codebook>(p);
  float* y[P];
  for (int n = 0; n < P; ++n) y[n] = p.y + (static_cast<std::size_t>(n) * p.tokens + token) * panel_rows;
  std::size_t lanes = begin * Step / p.group_size * panel_rows;
  std::size_t left = p.group_size - begin * Step % p.group_size;
  for (std::size_t step = begin; step < end; ++step) {
    __m512i dot[chains][P][T];
    for (auto& of_chain : dot)
      for (auto& of_panel : of_chain)
        for (__m512i& sum : of_panel) sum = _mm512_setzero_si512();
    const std::size_t sums = sum_index({token, T}, step, p.steps);
    const std::int8_t* const x = p.bytes + sums * Step;
    const byte* const block = p.codes + step * Step / block_cols * block_bytes(Bits);
#pragma GCC unroll 1
    for (std::size_t part = 0; part < Step; part += 32) {
      const std::size_t half = (step * Step + part) % block_cols / 32;
      prefetch_half<Bits, P>(p, block, half);
      if constexpr (few) prefetch_next_pair<Bits>(p, block, half);
#pragma GCC unroll 8
      for (int q = 0; q < 8; ++q) {
        __m512i values[P];
#pragma GCC unroll 2
        for (int n = 0; n < P; ++n)
          values[n] = load_values<Bits, Codebook>(block + static_cast<std::size_t>(n) * p.panel_bytes, half,
                                                  static_cast<std::size_t>(q), table);
#pragma GCC unroll 8
        for (int m = 0; m < T; ++m) {
          std::int32_t four;
          load(x + static_cast<std::size_t>(m * Step + 4 * q) + part, four);
          const __m512i all = _mm512_set1_epi32(four);
#pragma GCC unroll 2
          for (int n = 0; n < P; ++n)
            dot[q % chains][n][m] = _mm512_dpbusd_epi32(dot[q % chains][n][m], values[n], all);
        }
      }
    }
    prefetch_lanes<P, true>(p, lanes);
    for (int n = 0; n < P; ++n) {
      vec<float, 16> s, z;
      load_groups<Codebook, true>(p, lanes, static_cast<std::size_t>(n), s, z);
      for (int m = 0; m < T; ++m) {
        const std::size_t at = sums + static_cast<std::size_t>(m);
        const __m512i sum = chains == 1 ? dot[0][n][m] : _mm512_add_epi32(dot[0][n][m], dot[chains - 1][n][m]);
        add_step<16>(s, z, sum, p.unit[at], p.sum[at], y[n] + m * 16);
      }
    }
    left -= Step;
    if (left != 0) continue;
    left = p.group_size;
    lanes += panel_rows;
  }
}

/// @see multiply_strips
template <int Bits, bool Codebook, int Step>
struct kernel {
  static constexpr bool pairs = true;
  template <std::size_t T, std::size_t P>
  static void run(const panel_product& p, std::size_t token, std::size_t begin, std::size_t end) {
    multiply_tokens<Bits, Codebook, Step, static_cast<int>(T), static_cast<int>(P)>(p, token, begin, end);
  }
};

} // namespace sinq::detail::vnni

#endif
