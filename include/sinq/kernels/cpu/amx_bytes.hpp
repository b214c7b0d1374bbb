#pragma once

#include "amx_tiles.hpp"
#include "lanes512.hpp"

#if SINQ_AMX

/// The kernel of bytes on tiles of AMX: 16 tokens by 16 rows by a step of columns an instruction.
namespace sinq::detail::amx {

/// Steps whose codes lie in tiles at once, and whose sums wait in the first cache.
inline constexpr std::size_t byte_steps_at_once = 4;

/// Panels whose outputs are written together.
inline constexpr std::size_t most_byte_panels = 8;
/// With fewer tokens than this, dot products of bytes are sooner done.
inline constexpr std::size_t fewest_byte_tokens = 9;

/// Bytes of a tile of codes: [Step / 4][16 rows x 4 columns].
template <int Step>
inline constexpr std::size_t code_tile_bytes = Step* panel_rows;

/// Writes the codes of steps [begin, end) of one panel as tiles of bytes.
/// @tparam Ahead  whether it asks for those that come later
template <int Bits, bool Codebook, int Step, bool Ahead>
SINQ_TARGET_AMX void write_code_tiles(const panel_product& p, std::size_t begin, std::size_t end, byte* to) {
  const __m512i table = level_table<Codebook>(p);
  for (std::size_t j = begin * Step; j < end * Step; j += 32) {
    const byte* const block = p.codes + j / block_cols * block_bytes(Bits);
    const std::size_t half = j % block_cols / 32;
    if constexpr (Ahead) prefetch_half<Bits, 1, panels_at_once>(p, block, half);
#pragma GCC unroll 8
    for (std::size_t q = 0; q < 8; ++q, to += 4 * panel_rows)
      store(load_values<Bits, Codebook>(block, half, q, table), to);
  }
}

/// Sums of a step, of tokens by panels of rows.
template <std::size_t T>
using step_dots = std::int32_t[T][panels_at_once][tile_tokens][panel_rows];

/// Multiplies T tiles of tokens by those of two panels in one step.
/// @param x        the first tokens, @param x_apart  bytes to the next ones
/// @param w        the first panel, @param w_apart  bytes to the next one
template <class Tiles, int Step, std::size_t T>
SINQ_TARGET_AMX SINQ_INLINE void multiply_step(const std::int8_t* x, std::size_t x_apart, const byte* w,
                                               std::size_t w_apart, step_dots<T>& dots) {
  Tiles::template zero<0>(), Tiles::template zero<1>();
  Tiles::template load<4, Step>(x), Tiles::template load<6>(w);
  Tiles::template multiply_bytes<0, 4, 6>();
  Tiles::template load<7>(w + w_apart);
  Tiles::template multiply_bytes<1, 4, 7>();
  if constexpr (T == 2) {
    Tiles::template zero<2>(), Tiles::template zero<3>();
    Tiles::template load<5, Step>(x + x_apart);
    Tiles::template multiply_bytes<2, 5, 6>(), Tiles::template multiply_bytes<3, 5, 7>();
  }
  Tiles::template store<0>(dots[0][0]), Tiles::template store<1>(dots[0][1]);
  if constexpr (T == 2) Tiles::template store<2>(dots[1][0]), Tiles::template store<3>(dots[1][1]);
}

/// Asks for a share of the codes of a step, of those that are multiplied byte_steps_at_once steps later, and the first
/// time for their scales and zero points: memory is to be busy all the time.
/// @param turn  the tile of tokens, of those that go in twos
template <int Bits, int Step>
SINQ_INLINE void prefetch_share(const panel_product& p, std::size_t step, std::size_t turn) {
  constexpr std::size_t bytes = block_bytes(Bits) * Step / block_cols;
  const byte* const at = codes_at<panels_at_once>(p, (step + byte_steps_at_once) * bytes);
  const std::size_t turns = p.tokens / (2 * tile_tokens) * 2;
  const std::size_t share = (bytes / 64 + turns - 1) / turns * 64;
  for (std::size_t line = turn * share; line < std::min((turn + 1) * share, bytes); line += 64)
    __builtin_prefetch(at + line);
  if (turn == 0) prefetch_lanes<1>(p, step * Step / p.group_size * panel_rows);
}

/// Adds the sums of steps [begin, end) to y of 16 tokens.
/// @param dots    those of step `begin`; a step's lie `apart` tiles behind the last one's
/// @tparam Ahead  whether it asks for codes that come later
template <int Bits, bool Codebook, int Step, bool Ahead>
SINQ_TARGET_AMX SINQ_INLINE void add_steps(const panel_product& p, const std::int32_t (*dots)[tile_tokens][panel_rows],
                                           std::size_t apart, std::size_t token, std::size_t begin, std::size_t end) {
  vec<float, 16> y[tile_tokens];
  float* const out = p.y + token * panel_rows;
#pragma GCC unroll 16
  for (std::size_t m = 0; m < tile_tokens; ++m)
    if (begin == 0)
      y[m] = vec<float, 16>{};
    else
      load(out + m * panel_rows, y[m]);
  for (std::size_t step = begin; step < end; ++step, dots += apart) {
    const std::size_t sums = sum_index({token, tile_tokens}, step, p.steps);
    vec<float, 16> s, z;
    const std::size_t lanes = step * Step / p.group_size * panel_rows;
    load_groups<Codebook, false>(p, lanes, 0, s, z);
    if constexpr (Ahead) prefetch_share<Bits, Step>(p, step, token / tile_tokens);
#pragma GCC unroll 16
    for (std::size_t m = 0; m < tile_tokens; ++m)
      add_step<16>(s, z, (*dots)[m], p.unit[sums + m], p.sum[sums + m], reinterpret_cast<float*>(&y[m]));
  }
#pragma GCC unroll 16
  for (std::size_t m = 0; m < tile_tokens; ++m) store(y[m], out + m * panel_rows);
}

/// Adds steps [begin, end) to y of the T tiles of tokens that begin with that one. All products come before the sums:
/// tiles and vectors hinder each other.
/// @param pair  its panels
/// @param w     [2 x byte_steps_at_once] tiles of codes of those steps
template <class Tiles, int Bits, bool Codebook, int Step, std::size_t T>
SINQ_TARGET_AMX void multiply_tokens(const panel_product (&pair)[panels_at_once], const byte* w, std::size_t token,
                                     std::size_t begin, std::size_t end) {
  const panel_product& p = pair[0];
  alignas(64) step_dots<T> dots[byte_steps_at_once];
  const std::size_t x_apart = p.steps * Step * tile_tokens;
  const std::int8_t* x = p.bytes + sum_index({token, tile_tokens}, begin, p.steps) * Step;
  for (std::size_t n = 0; n < end - begin; ++n, x += tile_tokens * Step, w += code_tile_bytes<Step>)
    multiply_step<Tiles, Step, T>(x, x_apart, w, byte_steps_at_once * code_tile_bytes<Step>, dots[n]);
  for (std::size_t n = 0; n < panels_at_once; ++n)
    for (std::size_t t = 0; t < T; ++t)
      add_steps<Bits, Codebook, Step, T == 2>(pair[n], &dots[0][t][n], T * panels_at_once, token + t * tile_tokens,
                                              begin, end);
}

/// Multiplies any even number of panels by whole tiles of tokens.
template <class Tiles, int Bits, bool Codebook, int Step>
SINQ_TARGET_AMX void multiply_byte_tiles(const panel_product& p) {
  alignas(64) byte w[panels_at_once][byte_steps_at_once * code_tile_bytes<Step>];
  Tiles::template configure<Step>();
  for (std::size_t first = 0; first < p.panels; first += panels_at_once) {
    const panel_product pair[panels_at_once] = {p.panel(first), p.panel(first + 1)};
    for (std::size_t begin = 0; begin < p.steps; begin += byte_steps_at_once) {
      const std::size_t end = std::min(p.steps, begin + byte_steps_at_once);
      for (std::size_t n = 0; n < panels_at_once; ++n)
        if (p.tokens < 2 * tile_tokens)
          write_code_tiles<Bits, Codebook, Step, true>(pair[n], begin, end, w[n]);
        else
          write_code_tiles<Bits, Codebook, Step, false>(pair[n], begin, end, w[n]);
      std::size_t token = 0;
      for (; token + 2 * tile_tokens <= p.tokens; token += 2 * tile_tokens)
        multiply_tokens<Tiles, Bits, Codebook, Step, 2>(pair, w[0], token, begin, end);
      if (token < p.tokens) multiply_tokens<Tiles, Bits, Codebook, Step, 1>(pair, w[0], token, begin, end);
    }
  }
  Tiles::release();
}
template <class Tiles, int Bits>
void multiply_bytes(const panel_product& p) {
  if constexpr (Bits <= 4)
    if (p.byte_levels != nullptr)
      return p.step == 64 ? multiply_byte_tiles<Tiles, Bits, true, 64>(p)
                          : multiply_byte_tiles<Tiles, Bits, true, 32>(p);
  return p.step == 64 ? multiply_byte_tiles<Tiles, Bits, false, 64>(p) : multiply_byte_tiles<Tiles, Bits, false, 32>(p);
}

} // namespace sinq::detail::amx

#endif
