#pragma once

#include "../exact.hpp"
#include "amx_tiles.hpp"

#if SINQ_AMX

/// The kernel of very many tokens on tiles of AMX: weights become tiles of bf16 once for all tokens.
namespace sinq::detail::amx {

/// Panels and tokens that are multiplied at once: their sums are half a MiB, bf16_cols_at_once columns of the tokens as
/// much, in a second cache of 2 MiB; those columns of two panels are 32 KiB of a first one of 48.
inline constexpr std::size_t most_panels = 16, most_tokens = 512;
/// Bytes of a tile: of weights 16 pairs of columns x 16 rows x 2, of activations 16 tokens x 32 columns.
inline constexpr std::size_t tile_bytes = 1024;

/// Writes columns [begin, end) of one panel as tiles: the bf16 nearest to s (level - z), ties away from 0.
///   tile j / 32, row j % 32 / 2: [16 rows of the panel x 2 columns]
template <int Bits, bool Codebook>
struct weight_tiles_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const panel_product& p, std::size_t begin, std::size_t end, byte* to) {
    static_assert(W == panel_rows);
    const level_reader<Bits, Codebook, W> level_of{p.levels};
    for (std::size_t j = begin; j < end; j += bf16_tile_cols) {
      // columns beyond K have a number for a scale too: tokens are 0 there
      const std::size_t group = std::min(j / p.group_size, p.groups - 1) * panel_rows;
      const byte* const block = p.codes + j / block_cols * block_bytes(Bits);
      vec<float, W> scale, zero;
      load_lanes<W>(p.scale, group, scale);
      load_lanes<W>(p.zero, group, zero);
      const vec<float, W> offset = -(scale * zero);
#pragma GCC unroll 8
      for (std::size_t q = 0; q < 8; ++q) {
        vec<std::uint32_t, W> codes;
        load_quad<Bits, W>(block, j % block_cols / 32, q, 0, codes);
#pragma GCC unroll 2
        for (std::size_t b = 0; b < 4; b += 2, to += 4 * panel_rows) {
          vec<std::uint32_t, W> even, odd;
          weights<W>(level_of, codes, b, scale, offset, even);
          weights<W>(level_of, codes, b + 1, scale, offset, odd);
          store((even >> 16u) | (odd & 0xffff0000u), to);
        }
      }
    }
  }

private:
  /// Weights of a column, as floats to be cut to bf16.
  template <std::size_t W>
  SINQ_INLINE static void weights(const level_reader<Bits, Codebook, W>& level_of, const vec<std::uint32_t, W>& codes,
                                  std::size_t b, const vec<float, W>& scale, const vec<float, W>& offset,
                                  vec<std::uint32_t, W>& bits) {
    vec<float, W> level;
    level_of(codes, b, level);
    level = level * scale + offset;
    load(&level, bits);
    bits += 0x8000u;
  }
};

/// Adds columns [begin, end) of two panels to y: two tiles of tokens by two of rows at a time. Weights stay in the
/// first cache, and as memory would rest meanwhile, codes that come next are asked for.
/// @param w     [2] of tiles of those columns, w_bytes apart
/// @param next  [2] of next_bytes of codes, p.panel_bytes apart
template <class Tiles>
SINQ_TARGET_AMX void multiply_tokens(const panel_product& p, const byte* w, std::size_t w_bytes, std::size_t begin,
                                     std::size_t end, const byte* next, std::size_t next_bytes) {
  const byte* const next_end = next + next_bytes;
  const std::size_t x_bytes = (end - begin) / bf16_tile_cols * tile_bytes, across = p.tokens * panel_rows;
  for (std::size_t m = 0; m < p.tokens; m += 2 * tile_tokens) {
    // a tile that is not there has the same values as the one that takes its place
    const bool second = m + tile_tokens < p.tokens;
    const byte* const x0 = p.tiles + bf16_tiles_offset_bytes(m, begin, p.tokens, p.stride);
    const byte* const x1 = second ? x0 + x_bytes : x0;
    float* const y = p.y + m * panel_rows;
    const std::size_t down = second ? tile_tokens * panel_rows : 0;
    if (begin > 0) {
      Tiles::template stream<0>(y), Tiles::template stream<1>(y + across);
      Tiles::template stream<2>(y + down), Tiles::template stream<3>(y + down + across);
    } else {
      Tiles::template zero<0>(), Tiles::template zero<1>(), Tiles::template zero<2>(), Tiles::template zero<3>();
    }
    for (std::size_t at = 0; at < (end - begin) / bf16_tile_cols * tile_bytes; at += tile_bytes) {
      Tiles::template stream<4>(x0 + at), Tiles::template load<6>(w + at);
      Tiles::template stream<5>(x1 + at), Tiles::template load<7>(w + w_bytes + at);
      Tiles::template multiply<0, 4, 6>(), Tiles::template multiply<1, 4, 7>();
      Tiles::template multiply<2, 5, 6>(), Tiles::template multiply<3, 5, 7>();
      if (next >= next_end) continue;
      __builtin_prefetch(next), __builtin_prefetch(next + p.panel_bytes);
      next += 64;
    }
    Tiles::template store<3>(y + down + across), Tiles::template store<2>(y + down);
    Tiles::template store<1>(y + across), Tiles::template store<0>(y);
  }
}

/// Multiplies any even number of panels. Numerics: weights and x' in bf16, sums in f32; subnormal numbers count as 0.
template <class Tiles, int Bits, bool Codebook>
SINQ_TARGET_AMX void multiply_bf16_tiles(const panel_product& p) {
  constexpr std::size_t w_bytes = bf16_cols_at_once / bf16_tile_cols * tile_bytes;
  alignas(64) byte w[panels_at_once * w_bytes];
  Tiles::template configure<>();
  for (std::size_t begin = 0; begin < p.stride; begin += bf16_cols_at_once) {
    const std::size_t end = std::min(p.stride, begin + bf16_cols_at_once);
    for (std::size_t n = 0; n < p.panels; n += panels_at_once) {
      for (std::size_t of_pair = 0; of_pair < panels_at_once; ++of_pair) {
        const panel_product one = p.panel(n + of_pair);
        byte* const to = w + of_pair * w_bytes;
        fused::run_avx512<weight_tiles_loop<Bits, Codebook>>(one, begin, end, to);
      }
      // those of the next pair, or of the first one's next columns
      const bool last = n + panels_at_once >= p.panels;
      const byte* const next =
          p.panel(last ? 0 : n + panels_at_once).codes + (last ? end : begin) / block_cols * block_bytes(Bits);
      multiply_tokens<Tiles>(p.panel(n), w, w_bytes, begin, end, next, (end - begin) / block_cols * block_bytes(Bits));
    }
  }
  Tiles::release();
}
template <class Tiles, int Bits>
void multiply_bf16(const panel_product& p) {
  if constexpr (Bits <= 4) {
    panel_product looked_up = p;
    if (p.levels == nullptr) looked_up.levels = whole_numbers.data();
    return multiply_bf16_tiles<Tiles, Bits, true>(looked_up);
  } else {
    return p.levels == nullptr ? multiply_bf16_tiles<Tiles, Bits, false>(p) : multiply_bf16_tiles<Tiles, Bits, true>(p);
  }
}

} // namespace sinq::detail::amx

#endif
