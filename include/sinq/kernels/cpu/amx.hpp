#pragma once

#include "../exact.hpp"

#if SINQ_AMX

#define SINQ_TARGET_AMX __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,amx-tile,amx-bf16")))

/// The kernel of many tokens on tiles of AMX: weights become tiles of bf16 once for all tokens.
namespace sinq::detail::amx {

/// Panels that lie in tiles at once, and columns of them: 1 MiB, half of a second cache.
inline constexpr std::size_t most_panels = 8, cols_at_once = 4096;
/// Tokens that go over them. With fewer than this, dot products of bytes are sooner done.
inline constexpr std::size_t most_tokens = 512, fewest_tokens = 17;
/// Bytes of a tile: of weights 16 pairs of columns x 16 rows x 2, of activations 16 tokens x 32 columns.
inline constexpr std::size_t tile_bytes = 1024;

/// The eight tile registers, each of 16 rows of 64 bytes.
struct hardware_tiles {
  SINQ_TARGET_AMX SINQ_INLINE static void configure() {
    struct alignas(64) {
      std::uint8_t palette = 1, start_row = 0, reserved[14]{};
      std::uint16_t row_bytes[16]{64, 64, 64, 64, 64, 64, 64, 64};
      std::uint8_t rows[16]{16, 16, 16, 16, 16, 16, 16, 16};
    } const shapes;
    static_assert(sizeof shapes == 64);
    asm volatile("ldtilecfg %0" : : "m"(shapes));
  }
  SINQ_TARGET_AMX SINQ_INLINE static void release() { asm volatile("tilerelease"); }
  template <int Tile>
  SINQ_TARGET_AMX SINQ_INLINE static void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(Tile));
  }
  template <int Tile>
  SINQ_TARGET_AMX SINQ_INLINE static void load(const void* from) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(std::size_t{64}), "i"(Tile) : "memory");
  }
  template <int Tile>
  SINQ_TARGET_AMX SINQ_INLINE static void store(void* to) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(std::size_t{64}), "i"(Tile) : "memory");
  }
  /// sum[m][n] += sum_k a[m][2 k] b[k][2 n] + a[m][2 k + 1] b[k][2 n + 1], of bf16 in f32
  template <int Sum, int A, int B>
  SINQ_TARGET_AMX SINQ_INLINE static void multiply() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sum), "i"(A), "i"(B));
  }
};

/// Writes columns [begin, end) of one panel as tiles: the bf16 nearest to s (level - z), ties away from 0.
///   tile j / 32, row j % 32 / 2: [16 rows of the panel x 2 columns]
template <int Bits, bool Codebook>
struct weight_tiles_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const panel_product& p, std::size_t begin, std::size_t end, byte* to) {
    static_assert(W == panel_rows);
    const level_reader<Bits, Codebook, W> level_of{p.levels};
    for (std::size_t j = begin; j < end; j += bf16_tile_cols) {
      const std::size_t group = j / p.group_size * panel_rows;
      const byte* const block = p.codes + j / block_cols * block_bytes(Bits);
      vec<float, W> scale, zero;
      load(p.scale + group, scale);
      load(p.zero + group, zero);
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

/// Adds columns [begin, end) to y: two tiles of tokens by two of rows at a time.
/// @param w       [panels] of tiles, w_bytes apart
/// @param stored  whether y holds what earlier columns gave
template <class Tiles>
SINQ_TARGET_AMX void multiply_tokens(const panel_product& p, const byte* w, std::size_t w_bytes, std::size_t begin,
                                     std::size_t end, bool stored) {
  Tiles::configure();
  const std::size_t x_bytes = p.stride / bf16_tile_cols * tile_bytes;
  for (std::size_t m = 0; m < p.tokens; m += 2 * bf16_tile_tokens)
    for (std::size_t n = 0; n < p.panels; n += 2) {
      const bool second_tokens = m + bf16_tile_tokens < p.tokens, second_panel = n + 1 < p.panels;
      const byte* const x0 = p.tiles + m / bf16_tile_tokens * x_bytes + begin / bf16_tile_cols * tile_bytes;
      const byte* const x1 = second_tokens ? x0 + x_bytes : x0;
      const byte* const w0 = w + n * w_bytes;
      const byte* const w1 = second_panel ? w0 + w_bytes : w0;
      float* const y = p.y + (n * p.tokens + m) * panel_rows;
      const std::size_t down = second_tokens ? bf16_tile_tokens * panel_rows : 0;
      const std::size_t across = second_panel ? p.tokens * panel_rows : 0;
      if (stored) {
        Tiles::template load<0>(y), Tiles::template load<1>(y + across);
        Tiles::template load<2>(y + down), Tiles::template load<3>(y + down + across);
      } else {
        Tiles::template zero<0>(), Tiles::template zero<1>(), Tiles::template zero<2>(), Tiles::template zero<3>();
      }
      for (std::size_t at = 0; at < (end - begin) / bf16_tile_cols * tile_bytes; at += tile_bytes) {
        Tiles::template load<4>(x0 + at), Tiles::template load<6>(w0 + at);
        Tiles::template load<5>(x1 + at), Tiles::template load<7>(w1 + at);
        Tiles::template multiply<0, 4, 6>(), Tiles::template multiply<1, 4, 7>();
        Tiles::template multiply<2, 5, 6>(), Tiles::template multiply<3, 5, 7>();
      }
      // one that is not there has the same values as the one that takes its place
      Tiles::template store<3>(y + down + across), Tiles::template store<2>(y + down);
      Tiles::template store<1>(y + across), Tiles::template store<0>(y);
    }
  Tiles::release();
}

/// Multiplies any number of panels. Numerics: weights and x' in bf16, sums in f32; subnormal numbers count as 0.
template <class Tiles, int Bits, bool Codebook>
void multiply_tiles(const panel_product& p) {
  const std::size_t w_bytes = std::min(p.stride, cols_at_once) / bf16_tile_cols * tile_bytes;
  aligned_buffer<byte> w{p.panels * w_bytes, aligned_buffer<byte>::uninitialized};
  for (std::size_t begin = 0; begin < p.stride; begin += cols_at_once) {
    const std::size_t end = std::min(p.stride, begin + cols_at_once);
    for (std::size_t n = 0; n < p.panels; ++n) {
      const panel_product one = p.panel(n);
      byte* const to = w.data() + n * w_bytes;
      fused::run_avx512<weight_tiles_loop<Bits, Codebook>>(one, begin, end, to);
    }
    multiply_tokens<Tiles>(p, w.data(), w_bytes, begin, end, begin != 0);
  }
}
template <class Tiles, int Bits>
void multiply(const panel_product& p) {
  if constexpr (Bits <= 4) {
    panel_product looked_up = p;
    if (p.levels == nullptr) looked_up.levels = whole_numbers.data();
    return multiply_tiles<Tiles, Bits, true>(looked_up);
  } else {
    return p.levels == nullptr ? multiply_tiles<Tiles, Bits, false>(p) : multiply_tiles<Tiles, Bits, true>(p);
  }
}

} // namespace sinq::detail::amx

#endif
