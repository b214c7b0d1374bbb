#pragma once

#include "panel.hpp"

#include <array>
#include <utility>

/// The kernel of floats, for every instruction set: a block of codes becomes floats in the first cache, then every
/// token is multiplied with them.
namespace sinq::detail {

/// Levels of a block: w[16 j + r] is that of row r, column j.
template <int Bits>
struct expand_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const byte* block, const float* levels, float* w) {
    for (std::size_t quad = 0; quad < block_cols / 4; ++quad)
      for (std::size_t lane = 0; lane < panel_rows; lane += W) {
        vec<std::uint32_t, W> codes;
        load_quad<Bits, W>(block, quad / 8, quad % 8, lane, codes);
        for (std::size_t b = 0; b < 4; ++b) {
          const vec<std::uint32_t, W> code = (codes >> static_cast<std::uint32_t>(8 * b)) & 0xffu;
          float* const to = w + (4 * quad + b) * panel_rows + lane;
          if (levels == nullptr) {
            store(__builtin_convertvector(__builtin_convertvector(code, vec<std::int32_t, W>), vec<float, W>), to);
          } else {
            for (std::size_t r = 0; r < W; ++r) to[r] = levels[code[r]];
          }
        }
      }
  }
};

/// Adds what one segment gives to T tokens.
template <std::size_t T>
struct segment_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const panel_product& p, const float* w, std::size_t n, std::size_t token) {
    constexpr std::size_t chains = T >= 4 ? 1 : 4 / T; // sums that do not wait for each other
    const segment& part = p.segments[n];
    const float* x[T];
    for (std::size_t m = 0; m < T; ++m) x[m] = p.values + (token + m) * p.stride;
    for (std::size_t lane = 0; lane < panel_rows; lane += W) {
      const float* const from = w + lane;
      vec<float, W> dot[T][chains]{}, level;
      std::size_t j = part.begin;
      for (; j + chains <= part.end; j += chains)
        for (std::size_t c = 0; c < chains; ++c) {
          load(from + (j + c) % block_cols * panel_rows, level);
          for (std::size_t m = 0; m < T; ++m) dot[m][c] += level * x[m][j + c];
        }
      for (; j < part.end; ++j) {
        load(from + j % block_cols * panel_rows, level);
        for (std::size_t m = 0; m < T; ++m) dot[m][0] += level * x[m][j];
      }
      vec<float, W> scale, zero, y;
      load(p.scale + part.group * panel_rows + lane, scale);
      load(p.zero + part.group * panel_rows + lane, zero);
      for (std::size_t m = 0; m < T; ++m) {
        for (std::size_t c = 1; c < chains; ++c) dot[m][0] += dot[m][c];
        float* const to = p.y + (token + m) * panel_rows + lane;
        load(to, y);
        store(y + scale * (dot[m][0] - zero * p.sum[sum_index({token, T}, n, p.steps) + m]), to);
      }
    }
  }
};

/// Multiplies one panel. Numerics: f32; at most 64 products in a chain, then a segment's sum enters y.
template <int Bits>
void multiply_one_exact(const panel_product& p) {
  alignas(64) std::array<float, block_cols * panel_rows> w;
  std::fill_n(p.y, p.tokens * panel_rows, 0.0f);
  for (std::size_t n = 0; n < p.steps; ++n) {
    const std::size_t block = p.segments[n].begin / block_cols;
    if (p.segments[n].begin % block_cols == 0)
      run_wide_fused<expand_loop<Bits>>(p.codes + block * block_bytes(Bits), p.levels, w.data());
    for_each_strip(p.tokens,
                   [&](auto size, std::size_t token) { run_wide_fused<segment_loop<size()>>(p, w.data(), n, token); });
  }
}

template <int Bits>
void multiply_exact(const panel_product& p) {
  for (std::size_t n = 0; n < p.panels; ++n) multiply_one_exact<Bits>(p.panel(n));
}

} // namespace sinq::detail
