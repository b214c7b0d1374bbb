#pragma once

#include "amx_tiles.hpp"

#if SINQ_AMX

/// Tiles of weights in bf16.
namespace sinq::detail::amx {

/// From the tiles of a unit's first panel to those of the second.
inline constexpr std::size_t unit_bytes = bf16_cols_at_once / bf16_tile_cols * tile_bytes;

/// What weights are multiplied by before they are cut to the 16 bits of bf16, to make up for what that takes from them
/// in the mean where their logarithms are evenly spread: no addition for each of them, as rounding needs.
/// |error| <= 1.28 2^-8 |weight|; those that bf16 has stay.
inline constexpr float before_cut = 1 + 0.7213f / 256;

/// Columns of a pair of panels: their tiles are made while those before are multiplied.
struct unit {
  std::size_t panel, begin, end;

  [[nodiscard]] std::size_t tiles() const { return (end - begin) / bf16_tile_cols; } ///< of a panel
};

/// Makes the tiles of one panel of a unit, one after another:
///   tile j / 32, row j % 32 / 2: [16 rows of the panel x 2 columns] of s (level - z) before_cut, cut to bf16
template <int Bits>
class tile_maker {
public:
  static constexpr std::size_t quads = 8; ///< of columns of a tile

  /// @param of_pair  0 or 1
  /// @param first    the tile that it begins with
  /// @param to       [2 x unit_bytes]
  SINQ_INLINE tile_maker(const panel_product& p, const unit& u, std::size_t of_pair, std::size_t first, byte* to)
      : codes_{p.codes + (u.panel + of_pair) * p.panel_bytes}, to_{to + of_pair * unit_bytes + first * tile_bytes},
        at_{u.begin + first * bf16_tile_cols}, lanes_{(u.panel + of_pair) * p.aux_apart} {
    last_lanes_ = lanes_ + (p.groups - 1) * panel_rows;
    const std::size_t group = std::min(at_ / p.group_size, p.groups - 1);
    lanes_ += group * panel_rows;
    group_end_ = (group + 1) * p.group_size;
  }

  /// Turns to a tile.
  SINQ_TARGET_AMX SINQ_INLINE void begin(const panel_product& p) {
    if (at_ >= group_end_ && lanes_ < last_lanes_) { // columns beyond K may have any scale: tokens are 0 there
      lanes_ += panel_rows;
      group_end_ += p.group_size;
    }
    vec<float, 16> s, z;
    load_lanes<16>(p.scale, lanes_, s);
    load_lanes<16>(p.zero, lanes_, z);
    s *= before_cut;
    z = -(s * z);
    load(&s, scale_);
    load(&z, offset_);
    asm("" : "+v"(offset_)); // lest g++ 12 multiply by s twice
  }
  /// Writes some of its quads.
  template <std::size_t First, std::size_t Count>
  SINQ_TARGET_AMX SINQ_INLINE void write(const __m512& levels) const {
    const byte* const block = codes_ + at_ / block_cols * block_bytes(Bits);
    const std::size_t half = at_ % block_cols / bf16_tile_cols;
    constexpr int down = one_plane ? static_cast<int>(First % (8 / Bits)) * Bits : 0;
    __m512i codes;
    if constexpr (one_plane) {
      load(block + (half * Bits + First * Bits / 8) * code_vector_bytes, codes);
    } else {
      vec<std::uint32_t, 16> quad;
      load_quad<Bits, 16>(block, half, First, 0, quad);
      load(&quad, codes);
    }
    byte* const row = to_ + First * 2 * code_vector_bytes;
    write_row(weights<down>(codes, levels), weights<down + 8>(codes, levels), row);
    write_row(weights<down + 16>(codes, levels), weights<down + 24>(codes, levels), row + code_vector_bytes);
    if constexpr (Count > 1) write<First + 1, Count - 1>(levels);
  }
  /// Ends a tile.
  SINQ_INLINE void end() {
    at_ += bf16_tile_cols;
    to_ += tile_bytes;
  }

private:
  /// Whether a code is found by one shift: what lies above it in the lane does not matter to a table of 16 levels.
  static constexpr bool one_plane = Bits == 2 || Bits == 4;

  /// s (level - z) before_cut of the codes that begin with that bit.
  template <int Down>
  SINQ_TARGET_AMX SINQ_INLINE __m512 weights(const __m512i& codes, const __m512& levels) const {
    const __m512i code = Down == 0 ? codes : _mm512_maskz_srli_epi32(0xffff, codes, Down);
    __m512 level;
    if constexpr (Bits <= 4)
      level = _mm512_maskz_permutexvar_ps(0xffff, code, levels);
    else
      level = _mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_and_epi32(0xffff, code, _mm512_set1_epi32(0xff)));
    return _mm512_fmadd_ps(level, scale_, offset_);
  }
  /// The upper halves of two columns' floats, side by side.
  SINQ_TARGET_AMX SINQ_INLINE static void write_row(const __m512& even, const __m512& odd, byte* to) {
    constexpr __mmask64 lower_halves = 0x3333333333333333u;
    const __m512i upper_to_lower =
        _mm512_maskz_broadcast_i32x4(0xffff, _mm_set_epi8(-1, -1, 15, 14, -1, -1, 11, 10, -1, -1, 7, 6, -1, -1, 3, 2));
    const __m512i both =
        _mm512_mask_shuffle_epi8(_mm512_castps_si512(odd), lower_halves, _mm512_castps_si512(even), upper_to_lower);
    store(both, to);
  }

  const byte* codes_;
  byte* to_;
  std::size_t at_, lanes_, last_lanes_, group_end_; ///< the column, its place among scales, and where others follow
  __m512 scale_, offset_;
};

/// Makes the tiles of a unit's panel from a first one on.
template <int Bits>
SINQ_TARGET_AMX void make_tiles(const panel_product& p, const unit& u, std::size_t of_pair, std::size_t first,
                                const __m512& table, byte* to) {
  const __m512 levels = table; // in a register
  tile_maker<Bits> maker{p, u, of_pair, first, to};
  for (std::size_t tile = first; tile < u.tiles(); ++tile, maker.end()) {
    maker.begin(p);
    maker.template write<0, tile_maker<Bits>::quads>(levels);
  }
}

} // namespace sinq::detail::amx

#endif
