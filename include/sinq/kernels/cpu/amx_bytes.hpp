#pragma once

#include "amx_tiles.hpp"
#include "lanes512.hpp"

#if SINQ_AMX

/// The kernel of bytes on tiles of AMX: 16 tokens by 16 rows by 64 columns an instruction.
namespace sinq::detail::amx {

/// Columns of a step, and steps whose codes lie in tiles at once, and whose sums wait in the first cache.
inline constexpr std::size_t byte_step = 64, byte_steps_at_once = 4;
/// Panels whose outputs are written together.
inline constexpr std::size_t most_byte_panels = 8;

/// Sums of a step, of tokens by panels of rows.
using step_dots = std::int32_t[panels_at_once][tile_tokens][panel_rows];

/// Writes the codes of steps [begin, end) of one panel as tiles of bytes, and asks for those that come later.
template <int Bits, bool Codebook>
SINQ_TARGET_AMX void write_code_tiles(const panel_product& p, std::size_t begin, std::size_t end, byte* to) {
  const __m512i table = level_table<Codebook>(p);
  for (std::size_t j = begin * byte_step; j < end * byte_step; j += 32) {
    const byte* const block = p.codes + j / block_cols * block_bytes(Bits);
    const std::size_t half = j % block_cols / 32;
    prefetch_half<Bits, 1, panels_at_once>(p, block, half);
#pragma GCC unroll 8
    for (std::size_t q = 0; q < 8; ++q, to += code_vector_bytes)
      store(load_values<Bits, Codebook>(block, half, q, table), to);
  }
}

/// Adds the sums of steps [begin, end) to y of one panel.
/// @param panel  0 or 1
template <bool Codebook>
SINQ_TARGET_AMX void add_steps(const panel_product& p, const step_dots* dots, std::size_t panel, std::size_t begin,
                               std::size_t end) {
  vec<float, 16> y[tile_tokens];
#pragma GCC unroll 16
  for (std::size_t m = 0; m < tile_tokens; ++m)
    if (begin == 0)
      y[m] = vec<float, 16>{};
    else
      load(p.y + m * panel_rows, y[m]);
  for (std::size_t step = begin; step < end; ++step, ++dots) {
    const std::size_t sums = step * tile_tokens;
    vec<float, 16> s, z;
    load_groups<Codebook, false>(p, step * byte_step / p.group_size * panel_rows, 0, s, z);
#pragma GCC unroll 16
    for (std::size_t m = 0; m < tile_tokens; ++m)
      add_step<16>(s, z, (*dots)[panel][m], p.unit[sums + m], p.sum[sums + m], reinterpret_cast<float*>(&y[m]));
  }
#pragma GCC unroll 16
  for (std::size_t m = 0; m < tile_tokens; ++m) store(y[m], p.y + m * panel_rows);
}

/// Multiplies any even number of panels by one tile of tokens. All products of some steps come before their sums: tiles
/// and vectors hinder each other.
template <class Tiles, int Bits, bool Codebook>
SINQ_TARGET_AMX void multiply_byte_tiles(const panel_product& p) {
  alignas(64) byte w[panels_at_once][byte_steps_at_once * tile_bytes];
  alignas(64) step_dots dots[byte_steps_at_once];
  Tiles::configure();
  for (std::size_t first = 0; first < p.panels; first += panels_at_once) {
    const panel_product pair[panels_at_once] = {p.panel(first), p.panel(first + 1)};
    for (std::size_t begin = 0; begin < p.steps; begin += byte_steps_at_once) {
      const std::size_t end = std::min(p.steps, begin + byte_steps_at_once);
      for (std::size_t n = 0; n < panels_at_once; ++n) write_code_tiles<Bits, Codebook>(pair[n], begin, end, w[n]);
      for (std::size_t n = 0; n < end - begin; ++n) {
        Tiles::template zero<0>(), Tiles::template zero<1>();
        Tiles::template load<4>(p.bytes + (begin + n) * tile_bytes);
        Tiles::template load<6>(w[0] + n * tile_bytes);
        Tiles::template multiply_bytes<0, 4, 6>();
        Tiles::template load<7>(w[1] + n * tile_bytes);
        Tiles::template multiply_bytes<1, 4, 7>();
        Tiles::template store<0>(dots[n][0]), Tiles::template store<1>(dots[n][1]);
      }
      for (std::size_t n = 0; n < panels_at_once; ++n) add_steps<Codebook>(pair[n], dots, n, begin, end);
    }
  }
  Tiles::release();
}
template <class Tiles, int Bits>
void multiply_bytes(const panel_product& p) {
  if constexpr (Bits <= 4)
    if (p.byte_levels != nullptr) return multiply_byte_tiles<Tiles, Bits, true>(p);
  return multiply_byte_tiles<Tiles, Bits, false>(p);
}

} // namespace sinq::detail::amx

#endif
