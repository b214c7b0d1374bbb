#pragma once

#include "../panel.hpp"

#if defined(__aarch64__)

#include <arm_neon.h>
#include <sys/auxv.h>

/// The kernel of bytes with AArch64's dot products of signed bytes: four rows, four columns an instruction.
namespace sinq::detail::neon {

#if defined(__clang__)
#define SINQ_TARGET_DOTPROD __attribute__((target("dotprod")))
#else
#define SINQ_TARGET_DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

[[nodiscard]] inline bool has_dot_products() {
  constexpr unsigned long asimddp = 1ul << 20; // HWCAP_ASIMDDP
  return (getauxval(AT_HWCAP) & asimddp) != 0;
}

/// Adds steps [begin, end) to y of T tokens, 4 rows from `lane`. Values beyond 127 are multiplied as v - 128, and 128
/// times the sum of the step is added again.
template <int Bits, bool Codebook, int Step, int T>
SINQ_TARGET_DOTPROD void multiply_tokens(const panel_product& p, std::size_t token, std::size_t lane, std::size_t begin,
                                         std::size_t end) {
  constexpr bool wide = Codebook || Bits == 8;
  const uint8x16_t table = Codebook ? vld1q_u8(p.byte_levels) : vdupq_n_u8(0);
  float* const y = p.y + token * panel_rows + lane;
  for (std::size_t step = begin; step < end; ++step) {
    int32x4_t dot[T];
    for (int32x4_t& sum : dot) sum = vdupq_n_s32(0);
    const std::size_t sums = sum_index({token, T}, step, p.steps);
    const std::int8_t* const x = p.bytes + sums * Step;
    const byte* const block = p.codes + step * Step / block_cols * block_bytes(Bits);
    for (std::size_t part = 0; part < Step; part += 32) {
      const std::size_t half = (step * Step + part) % block_cols / 32;
#pragma GCC unroll 8
      for (int q = 0; q < 8; ++q) {
        vec<std::uint32_t, 4> codes;
        load_quad<Bits, 4>(block, half, static_cast<std::size_t>(q), lane, codes);
        uint8x16_t values;
        load(&codes, values);
        if constexpr (Codebook) values = vqtbl1q_u8(table, values);
        if constexpr (wide) values = veorq_u8(values, vdupq_n_u8(128));
#pragma GCC unroll 8
        for (int m = 0; m < T; ++m) {
          std::int32_t four;
          load(x + static_cast<std::size_t>(m * Step + 4 * q) + part, four);
          dot[m] = vdotq_s32(dot[m], vreinterpretq_s8_u8(values), vreinterpretq_s8_s32(vdupq_n_s32(four)));
        }
      }
    }
    const std::size_t group = step * Step / p.group_size * panel_rows + lane;
    vec<float, 4> s, z;
    load(p.scale.floats + group, s);
    load(p.zero.floats + group, z);
    if constexpr (wide) z -= 128.0f;
    for (int m = 0; m < T; ++m) {
      const std::size_t at = sums + static_cast<std::size_t>(m);
      add_step<4>(s, z, dot[m], p.unit[at], p.sum[at], y + m * 16);
    }
  }
}

/// @see multiply_strips
template <int Bits, bool Codebook, int Step>
struct kernel {
  static constexpr bool pairs = false;
  template <std::size_t T, std::size_t P>
  static void run(const panel_product& p, std::size_t token, std::size_t begin, std::size_t end) {
    for (std::size_t lane = 0; lane < panel_rows; lane += 4)
      multiply_tokens<Bits, Codebook, Step, static_cast<int>(T)>(p, token, lane, begin, end);
  }
};

} // namespace sinq::detail::neon

#endif
