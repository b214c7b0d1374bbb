#pragma once

#include "panel.hpp"

#include <algorithm>
#include <array>

/// The kernel of bytes as it is written down: whole numbers, so that every instruction set gives the same sums.
namespace sinq::detail {

/// v of four columns that follow each other; see load_quad.
template <int Bits, std::size_t W>
SINQ_INLINE void load_byte_levels(const panel_product& p, const byte* block, std::size_t half, std::size_t q,
                                  std::size_t lane, vec<std::uint32_t, W>& values) {
  load_quad<Bits, W>(block, half, q, lane, values);
  if (p.byte_levels == nullptr) return;
  std::array<std::uint8_t, 4 * W> each;
  store(values, each.data());
  for (std::uint8_t& code : each) code = p.byte_levels[code];
  load(each.data(), values);
}

template <int Bits>
struct int8_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const panel_product& p) {
    std::fill_n(p.y, p.tokens * panel_rows, 0.0f);
    for (strip s = strip_at(0, p.tokens); s.size > 0; s = strip_at(s.begin + s.size, p.tokens))
      for (std::size_t n = 0; n < p.steps; ++n)
        for (std::size_t m = 0; m < s.size; ++m)
          for (std::size_t lane = 0; lane < panel_rows; lane += W)
            multiply_step<W>(p, n, sum_index(s, n, p.steps) + m, lane, p.y + (s.begin + m) * panel_rows + lane);
  }

private:
  /// @param at  the place of the step's sum
  template <std::size_t W>
  SINQ_INLINE static void multiply_step(const panel_product& p, std::size_t n, std::size_t at, std::size_t lane,
                                        float* y) {
    const std::size_t begin = n * p.step;
    const byte* const block = p.codes + begin / block_cols * block_bytes(Bits);
    const std::int8_t* const x = p.bytes + at * p.step;
    vec<std::int32_t, W> dot{};
    for (std::size_t k = 0; k < p.step; k += 4) {
      vec<std::uint32_t, W> values;
      load_byte_levels<Bits, W>(p, block, (begin + k) % block_cols / 32, k % 32 / 4, lane, values);
      for (std::size_t b = 0; b < 4; ++b)
        dot += __builtin_convertvector((values >> static_cast<std::uint32_t>(8 * b)) & 0xffu, vec<std::int32_t, W>) *
               std::int32_t{x[k + b]};
    }
    vec<float, W> scale, zero;
    load(p.scale.floats + begin / p.group_size * panel_rows + lane, scale);
    load(p.zero.floats + begin / p.group_size * panel_rows + lane, zero);
    add_step<W>(scale, zero, dot, p.unit[at], p.sum[at], y);
  }
};

template <int Bits>
void multiply_int8(const panel_product& p) {
  for (std::size_t n = 0; n < panels_at_once; ++n) run_wide_fused<int8_loop<Bits>>(p.panel(n));
}

} // namespace sinq::detail
