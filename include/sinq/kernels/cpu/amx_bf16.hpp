#pragma once

#include "weight_tiles.hpp"

#if SINQ_AMX

/// The kernel of many tokens on tiles of AMX: weights become tiles of bf16 once for all tokens, those that come next
/// while others are multiplied.
namespace sinq::detail::amx {

/// Panels and tokens that are multiplied at once: their sums are a MiB of a second cache of 2 MiB.
inline constexpr std::size_t most_panels = 32, most_tokens = 512;
/// Tokens that are multiplied by two panels at a time.
inline constexpr std::size_t tokens_at_once = 2 * tile_tokens;

/// The order of units: so many columns that their activations stay in the second cache, of one pair of panels after
/// another; then the next columns.
class unit_order {
public:
  explicit unit_order(const panel_product& p)
      : cols_{p.tokens <= few ? bf16_cols_at_once / 2 : bf16_cols_at_once},
        kept_cols_{std::max(kept_bytes / (2 * p.tokens) / bf16_cols_at_once, std::size_t{1}) * bf16_cols_at_once},
        stride_{p.stride}, panels_{p.panels} {}

  [[nodiscard]] unit first() const { return {0, 0, std::min(cols_, stride_)}; }
  [[nodiscard]] bool done(const unit& u) const { return u.begin >= stride_; }
  [[nodiscard]] unit after(const unit& u) const {
    const std::size_t kept_begin = u.begin / kept_cols_ * kept_cols_;
    const std::size_t kept_end = std::min(kept_begin + kept_cols_, stride_);
    unit next{u.panel, u.end, 0};
    if (u.end == kept_end) {
      const bool last = u.panel + panels_at_once >= panels_;
      next.panel = last ? 0 : u.panel + panels_at_once;
      if (!last) next.begin = kept_begin;
    }
    next.end = std::min(next.begin + cols_, next.begin < kept_end ? kept_end : stride_);
    return next;
  }

private:
  static constexpr std::size_t kept_bytes = std::size_t{1} << 19;
  /// With so few tokens the tiles of two units, of half as many columns, stay in the first cache beside the sums.
  static constexpr std::size_t few = 128;

  std::size_t cols_, kept_cols_, stride_, panels_;
};

/// Some tokens of a unit, and where their sums lie.
struct unit_pass {
  const byte *x, *w;    ///< tiles of the first tokens, and of both panels
  std::size_t x_second; ///< bytes to those of the second tokens; 0 where there are none
  float* y;
  std::size_t y_across;       ///< floats to the sums of the second panel
  std::size_t tiles;          ///< of columns
  bool begins, loads, stores; ///< whether sums begin, or are loaded; whether they are stored
};

/// Adds the products of a tile of columns to the sums, and writes quarters of what is made in between.
template <class Tiles, class Made>
SINQ_TARGET_AMX SINQ_INLINE void multiply_tile(const unit_pass& u, std::size_t tile, const Made& made) {
  const byte *const x = u.x + tile * tile_bytes, *const w = u.w + tile * tile_bytes;
  Tiles::template stream<4>(x), Tiles::template load<6>(w);
  Tiles::template multiply<0, 4, 6>();
  made.template write<0>();
  Tiles::template load<7>(w + unit_bytes);
  Tiles::template multiply<1, 4, 7>();
  made.template write<1>();
  if (u.x_second != 0) {
    Tiles::template stream<5>(x + u.x_second);
    Tiles::template multiply<2, 5, 6>();
  }
  made.template write<2>();
  if (u.x_second != 0) Tiles::template multiply<3, 5, 7>();
  made.template write<3>();
}

struct no_tile {
  template <int Quarter>
  SINQ_INLINE void write() const {}
};
template <int Bits>
struct one_tile {
  const tile_maker<Bits>& maker;
  const __m512& levels;
  template <int Quarter>
  SINQ_TARGET_AMX SINQ_INLINE void write() const {
    maker.template write<2 * Quarter, 2>(levels);
  }
};
template <int Bits>
struct two_tiles {
  const tile_maker<Bits>&first, &second;
  const __m512& levels;
  template <int Quarter>
  SINQ_TARGET_AMX SINQ_INLINE void write() const {
    (Quarter < 2 ? first : second).template write<Quarter % 2 * 4, 4>(levels);
  }
};

/// Multiplies some tokens of a unit, while as many tiles of the next one are made.
/// @param of_pair  the first panel whose tiles are made, @tparam Made  how many panels
template <class Tiles, int Bits, std::size_t Made>
SINQ_TARGET_AMX void multiply_pass(const panel_product& p, const unit_pass& u, const unit& next, std::size_t of_pair,
                                   const __m512& table, byte* to) {
  constexpr std::size_t y_second = tile_tokens * panel_rows;
  const __m512 levels = table; // in a register
  if (u.begins) {
    Tiles::template zero<0>(), Tiles::template zero<1>(), Tiles::template zero<2>(), Tiles::template zero<3>();
  } else if (u.loads) {
    Tiles::template stream<0>(u.y), Tiles::template stream<1>(u.y + u.y_across);
    if (u.x_second != 0)
      Tiles::template stream<2>(u.y + y_second), Tiles::template stream<3>(u.y + y_second + u.y_across);
  }
  const std::size_t with_made = std::min(u.tiles, next.tiles());
  std::size_t tile = 0;
  if constexpr (Made == 1) {
    tile_maker<Bits> maker{p, next, of_pair, 0, to};
    for (; tile < with_made; ++tile, maker.end()) {
      maker.begin(p);
      multiply_tile<Tiles>(u, tile, one_tile<Bits>{maker, levels});
    }
  } else if constexpr (Made == 2) {
    tile_maker<Bits> first{p, next, 0, 0, to}, second{p, next, 1, 0, to};
    for (; tile < with_made; ++tile, first.end(), second.end()) {
      first.begin(p), second.begin(p);
      multiply_tile<Tiles>(u, tile, two_tiles<Bits>{first, second, levels});
    }
  }
  for (; tile < u.tiles; ++tile) multiply_tile<Tiles>(u, tile, no_tile{});
  if (!u.stores) return;
  Tiles::template store<0>(u.y), Tiles::template store<1>(u.y + u.y_across);
  if (u.x_second != 0) Tiles::template store<2>(u.y + y_second), Tiles::template store<3>(u.y + y_second + u.y_across);
}

/// Multiplies any even number of panels. Numerics: weights and x' in bf16, sums in f32; subnormal numbers count as 0.
template <class Tiles, int Bits>
SINQ_TARGET_AMX void multiply_bf16(const panel_product& p) {
  alignas(64) byte w[2][panels_at_once * unit_bytes];
  alignas(64) float all[panel_rows]{}; // of codes modulo 2^Bits
  if constexpr (Bits <= 4)
    for (std::size_t n = 0; n < panel_rows; ++n) {
      const std::size_t code = n % (std::size_t{1} << Bits);
      all[n] = p.levels == nullptr ? static_cast<float>(code) : p.levels[code];
    }
  const __m512 levels = _mm512_load_ps(all);
  Tiles::configure();
  const unit_order order{p};
  const bool few = p.tokens <= tokens_at_once;
  unit now = order.first();
  for (std::size_t n = 0; n < panels_at_once; ++n) make_tiles<Bits>(p, now, n, 0, levels, w[0]);
  bool kept = false; // the sums of the last unit, in tiles
  for (std::size_t turn = 0; !order.done(now); turn ^= 1) {
    const unit next = order.after(now); // of no columns after the last one
    const bool keep = few && !order.done(next) && next.panel == now.panel;
    const std::size_t cols_begin = now.begin / bf16_cols_at_once * bf16_cols_at_once;
    const std::size_t cols = std::min(bf16_cols_at_once, p.stride - cols_begin);
    for (std::size_t m = 0; m < p.tokens; m += tokens_at_once) {
      const bool second = m + tile_tokens < p.tokens;
      const unit_pass pass{.x = p.tiles + bf16_tiles_offset_bytes(m, cols_begin, p.tokens, p.stride) +
                                (now.begin - cols_begin) / bf16_tile_cols * tile_bytes,
                           .w = w[turn],
                           .x_second = second ? cols / bf16_tile_cols * tile_bytes : 0,
                           .y = p.y + (now.panel * p.tokens + m) * panel_rows,
                           .y_across = p.tokens * panel_rows,
                           .tiles = now.tiles(),
                           .begins = now.begin == 0,
                           .loads = !kept,
                           .stores = !keep};
      const std::size_t turn_of_tokens = m / tokens_at_once;
      if (few)
        multiply_pass<Tiles, Bits, 2>(p, pass, next, 0, levels, w[turn ^ 1]);
      else if (turn_of_tokens < panels_at_once)
        multiply_pass<Tiles, Bits, 1>(p, pass, next, turn_of_tokens, levels, w[turn ^ 1]);
      else
        multiply_pass<Tiles, Bits, 0>(p, pass, next, 0, levels, w[turn ^ 1]);
    }
    for (std::size_t n = 0; n < panels_at_once; ++n) make_tiles<Bits>(p, next, n, now.tiles(), levels, w[turn ^ 1]);
    kept = keep;
    now = next;
  }
  Tiles::release();
}

} // namespace sinq::detail::amx

#endif
