#pragma once

/// Chains of products on x86-64; included by limits.cpp alone.

#include "limits.hpp"

#if SINQ_X86

#include <sinq/core/wide.hpp>

#include <cpuid.h>
#include <cstring>
#include <immintrin.h>

namespace sinq_bench {

/// Chains that do not wait for each other: two pipes of four or five cycles are filled, and sixteen registers suffice.
inline constexpr int chains = 12;

/// Keeps the compiler from knowing a factor, and so from taking its product out of the loop.
#define SINQ_BENCH_UNKNOWN(vector) asm volatile("" : "+x"(vector))

SINQ_TARGET_AVX512 inline void fma_avx512(std::size_t steps) {
  __m512 sums[chains] = {};
  __m512 a = _mm512_set1_ps(0.5f);
  for (; steps != 0; --steps)
    for (__m512& sum : sums) {
      SINQ_BENCH_UNKNOWN(a);
      sum = _mm512_fmadd_ps(a, a, sum);
    }
  for (__m512& sum : sums) SINQ_BENCH_UNKNOWN(sum);
}

SINQ_TARGET_AVX2 inline void fma_avx2(std::size_t steps) {
  __m256 sums[chains] = {};
  __m256 a = _mm256_set1_ps(0.5f);
  for (; steps != 0; --steps)
    for (__m256& sum : sums) {
      SINQ_BENCH_UNKNOWN(a);
      sum = _mm256_fmadd_ps(a, a, sum);
    }
  for (__m256& sum : sums) SINQ_BENCH_UNKNOWN(sum);
}

/// In assembler, because g++ 12 puts a copy before and after the intrinsic.
SINQ_TARGET_AVX512 inline void dpbusd_avx512(std::size_t steps) {
  __m512i sums[chains] = {};
  const __m512i a = _mm512_set1_epi8(3);
  for (; steps != 0; --steps)
    for (__m512i& sum : sums) asm volatile("vpdpbusd %1, %1, %0" : "+x"(sum) : "x"(a));
}

/// Dot products of bytes as AVX2 has them: pairs into 16 bits, these into 32, and these added.
SINQ_TARGET_AVX2 inline void maddubs_avx2(std::size_t steps) {
  __m256i sums[chains] = {};
  __m256i a = _mm256_set1_epi8(3);
  const __m256i ones = _mm256_set1_epi16(1);
  for (; steps != 0; --steps)
    for (__m256i& sum : sums) {
      SINQ_BENCH_UNKNOWN(a);
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, a), ones));
    }
  for (__m256i& sum : sums) SINQ_BENCH_UNKNOWN(sum);
}

/// Shapes of all eight tiles: 16 rows of 64 bytes.
struct alignas(64) tile_shapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

/// Tiles are zero afterwards.
__attribute__((target("amx-tile"))) inline void load_tile_shapes() {
  const tile_shapes shapes;
  asm volatile("" : : "r"(&shapes) : "memory"); // g++ 12 takes the stores for dead
  _tile_loadconfig(&shapes);
}

/// Four sums of tiles, each of two factors of which two are in use by another sum: 2 x 2 blocks.
__attribute__((target("amx-tile,amx-int8"))) inline void tiles_int8(std::size_t steps) {
  load_tile_shapes();
  for (; steps != 0; --steps) {
    _tile_dpbusd(0, 4, 6);
    _tile_dpbusd(1, 4, 7);
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(3, 5, 7);
  }
  _tile_release();
}

__attribute__((target("amx-tile,amx-bf16"))) inline void tiles_bf16(std::size_t steps) {
  load_tile_shapes();
  for (; steps != 0; --steps) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
}

/// Whether tiles take products of bytes too.
[[nodiscard]] inline bool has_int8_tiles() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned amx_int8 = 1u << 25;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & amx_int8) != 0;
}

inline void add_peaks(std::vector<peak>& to) {
  const bool avx2 = sinq::current_isa() >= sinq::isa::avx2;
  const bool avx512 = sinq::current_isa() >= sinq::isa::avx512;
  if (avx2) to.push_back({"fp32 FMA, AVX2", arithmetic::f32, chains * 8, fma_avx2});
  if (avx512) to.push_back({"fp32 FMA, AVX-512", arithmetic::f32, chains * 16, fma_avx512});
  if (avx2) to.push_back({"int8 maddubs, AVX2", arithmetic::int8, chains * 32, maddubs_avx2});
  if (avx512 && __builtin_cpu_supports("avx512vnni") != 0)
    to.push_back({"int8 dpbusd, AVX-512 VNNI", arithmetic::int8, chains * 64, dpbusd_avx512});
  const bool amx = sinq::current_isa() == sinq::isa::amx;
  if (amx && has_int8_tiles()) to.push_back({"int8 AMX", arithmetic::int8, 4 * 16 * 16 * 64, tiles_int8});
  if (amx) to.push_back({"bf16 AMX", arithmetic::bf16, 4 * 16 * 16 * 32, tiles_bf16});
}

} // namespace sinq_bench

#endif
