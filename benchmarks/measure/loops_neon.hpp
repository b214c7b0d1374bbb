#pragma once

/// Chains of products on AArch64; included by limits.cpp alone.

#include "limits.hpp"

#if defined(__aarch64__)

#include <sinq/kernels/cpu/neon.hpp>

#include <arm_neon.h>

namespace sinq_bench {

/// Chains that do not wait for each other: four pipes of four cycles are filled.
inline constexpr int chains = 16;

/// Keeps the compiler from knowing a factor, and so from taking its product out of the loop.
#define SINQ_BENCH_UNKNOWN(vector) asm volatile("" : "+w"(vector))

inline void fma_neon(std::size_t steps) {
  float32x4_t sums[chains] = {};
  float32x4_t a = vdupq_n_f32(0.5f);
  for (; steps != 0; --steps)
    for (float32x4_t& sum : sums) {
      SINQ_BENCH_UNKNOWN(a);
      sum = vfmaq_f32(sum, a, a);
    }
  for (float32x4_t& sum : sums) SINQ_BENCH_UNKNOWN(sum);
}

SINQ_TARGET_DOTPROD inline void dot_neon(std::size_t steps) {
  int32x4_t sums[chains] = {};
  int8x16_t a = vdupq_n_s8(3);
  for (; steps != 0; --steps)
    for (int32x4_t& sum : sums) {
      SINQ_BENCH_UNKNOWN(a);
      sum = vdotq_s32(sum, a, a);
    }
  for (int32x4_t& sum : sums) SINQ_BENCH_UNKNOWN(sum);
}

inline void add_peaks(std::vector<peak>& to) {
  if (sinq::current_isa() != sinq::isa::neon) return;
  to.push_back({"fp32 FMA, NEON", arithmetic::f32, chains * 4, fma_neon});
  if (sinq::detail::neon::has_dot_products()) to.push_back({"int8 dot, NEON", arithmetic::int8, chains * 16, dot_neon});
}

} // namespace sinq_bench

#endif
