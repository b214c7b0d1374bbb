#pragma once

#include "../core/wide.hpp"
#include "../pack/panels.hpp"
#include "activations.hpp"

#include <type_traits>

namespace sinq::detail {

/// Panels that go through a kernel together, so that a token that is loaded serves both. One that is left over is
/// multiplied twice.
inline constexpr std::size_t panels_at_once = 2;

/// How far ahead of their use codes are asked for.
inline constexpr std::size_t prefetch_bytes = 3072;

/// Scales or zero points of panels: [panels x G x 16] of them in one of three forms, the others nullptr. Every kernel
/// takes floats; halves and codes only those that say so.
struct panel_lanes {
  const float* floats = nullptr; ///< the values
  const byte* halves = nullptr;  ///< of f16
  const byte* codes = nullptr;   ///< bytes u that stand for offset + base u
  const float* base = nullptr;   ///< [panels x super_groups x 16]
  const float* offset = nullptr; ///< the same, or nullptr: zeros

  /// Those that lie `lanes` and, of super-groups, `super_lanes` further on.
  [[nodiscard]] panel_lanes behind(std::size_t lanes, std::size_t super_lanes) const {
    const auto at = [](auto* first, std::size_t by) { return first == nullptr ? nullptr : first + by; };
    return {at(floats, lanes), at(halves, lanes * sizeof(float16)), at(codes, lanes), at(base, super_lanes),
            at(offset, super_lanes)};
  }
};

/// What a kernel multiplies: two panels of 16 rows by some tokens, y[m][r] = sum_j V[r][j] x'[m][j]. Tiles take any
/// even number of panels, and whole tiles of tokens.
///   floats:  y[m][r] = sum_n s[g(n)][r] (sum_{j in segment n} level[code[r][j]] x'[m][j] - z[g(n)][r] sum[m][n])
///   bytes:   y[m][r] = sum_n s[g(n)][r] (unit[m][n] sum_{j in step n} v[code[r][j]] q[m][j] - z[g(n)][r] sum[m][n])
struct panel_product {
  const byte* codes;       ///< [blocks] of block_bytes(bits) of the first panel
  std::size_t panel_bytes; ///< from the codes of one panel to those of the next; 0 for one panel twice
  std::size_t groups;
  std::size_t super_lanes; ///< scales of a panel that share a row of bases
  panel_lanes scale, zero;
  std::size_t aux_apart;   ///< from scales and zero points of one panel to those of the next; 0 for one panel twice
  std::size_t super_apart; ///< the same of their bases
  float* y;                ///< [2 x tokens x 16]

  const float* levels;             ///< of a codebook, or nullptr: codes stand for themselves
  const std::uint8_t* byte_levels; ///< [16] v of a codebook for bytes, or nullptr
  float most_level;                ///< the magnitude of a level that v = 255 or 1 stands for

  std::size_t tokens;
  std::size_t panels;      ///< for tiles
  std::size_t steps;       ///< sums of a token
  const float* sum;        ///< as in activations
  const segment* segments; ///< [steps] of floats
  const float* values;     ///< [tokens x stride] of floats
  std::size_t stride;
  const std::int8_t* bytes; ///< as in activations
  const float* unit;        ///< as in activations
  const byte* tiles;        ///< as in activations
  std::size_t step;         ///< columns of a step of bytes
  std::size_t group_size;   ///< a multiple of step, or at least all columns

  /// One panel alone.
  [[nodiscard]] panel_product panel(std::size_t n) const {
    panel_product one = *this;
    one.codes += n * panel_bytes;
    one.scale = scale.behind(n * aux_apart, n * super_apart);
    one.zero = zero.behind(n * aux_apart, n * super_apart);
    one.y += n * tokens * panel_rows;
    return one;
  }
};

/// What scales and zero points of a codebook become where v = 128 + round(127 level / most) takes the place of levels:
///   level ~ (v - 128) most / 127,   s (level - z) = s most / 127 (v - (128 + 127 z / most))
/// @tparam Values  float or a vector of them
template <class Values>
SINQ_INLINE void scale_to_bytes(float most, Values& scale) {
  scale *= most / 127;
}
template <class Values>
SINQ_INLINE void zero_to_bytes(float most, Values& zero) {
  zero = 128.0f + zero * (127 / most);
}

/// Calls f(size, begin) for each strip of tokens, size being a std::integral_constant.
template <class F>
SINQ_INLINE void for_each_strip(std::size_t tokens, F&& f) {
  for (strip s = strip_at(0, tokens); s.size > 0; s = strip_at(s.begin + s.size, tokens)) switch (s.size) {
    case 8: f(std::integral_constant<std::size_t, 8>{}, s.begin); break;
    case 4: f(std::integral_constant<std::size_t, 4>{}, s.begin); break;
    case 2: f(std::integral_constant<std::size_t, 2>{}, s.begin); break;
    default: f(std::integral_constant<std::size_t, 1>{}, s.begin); break;
    }
}

/// Codes of four columns that follow each other, a column a byte: 16 rows, W of them from row `lane`.
/// @param half, q  columns 32 half + 4 q .. + 3 of the block; q is 0 .. 7
template <int Bits, std::size_t W>
SINQ_INLINE void load_quad(const byte* block, std::size_t half, std::size_t q, std::size_t lane,
                           vec<std::uint32_t, W>& codes) {
  codes = vec<std::uint32_t, W>{};
  for (const code_plane& plane : code_planes(Bits)) {
    if (plane.bits == 0) continue;
    const auto width = static_cast<std::size_t>(plane.bits);
    const int down = static_cast<int>(q % (8 / width) * width) - plane.shift;
    const std::uint32_t mask = (((1u << width) - 1) << plane.shift) * 0x01010101u;
    vec<std::uint32_t, W> digits;
    load(block + plane.offset_bytes + (half * width + q * width / 8) * code_vector_bytes + 4 * lane, digits);
    codes |=
        (down < 0 ? digits << static_cast<std::uint32_t>(-down) : digits >> static_cast<std::uint32_t>(down)) & mask;
  }
}

/// Where those codes of the first panel lie that are multiplied as many bytes after its first ones.
/// @tparam Together  panels that go side by side, so that behind the last codes of one come those of the one so many on
template <std::size_t Together>
SINQ_INLINE const byte* codes_at(const panel_product& p, std::size_t bytes) {
  return p.codes + bytes + (bytes < p.panel_bytes ? 0 : (Together - 1) * p.panel_bytes);
}

/// Scales or zero points of W rows, of f16 or floats.
template <std::size_t W>
SINQ_INLINE void load_lanes(const panel_lanes& from, std::size_t at, vec<float, W>& to) {
  if (from.halves == nullptr) return load(from.floats + at, to);
  load_vector<float16, W>(from.halves + at * sizeof(float16), to);
}

/// Asks for the codes of P panels that are multiplied prefetch_bytes after those of 32 columns of a block; see
/// codes_at.
template <int Bits, std::size_t P, std::size_t Together = P>
SINQ_INLINE void prefetch_half(const panel_product& p, const byte* block, std::size_t half) {
  constexpr std::size_t bytes = block_bytes(Bits) / 2;
  const byte* const at =
      codes_at<Together>(p, static_cast<std::size_t>(block - p.codes) + half * bytes + prefetch_bytes);
  for (std::size_t n = 0; n < P; ++n)
    for (std::size_t line = 0; line < bytes; line += 64) __builtin_prefetch(at + n * p.panel_bytes + line);
}

/// Asks for as many codes of the next two panels, into the second cache: from two places of each, because memory gives
/// more from more places at once.
template <int Bits>
SINQ_INLINE void prefetch_next_pair(const panel_product& p, const byte* block, std::size_t half) {
  constexpr std::size_t line_bytes = 64, lines = block_bytes(Bits) / 2 / line_bytes, places = 2;
  const std::size_t before = static_cast<std::size_t>(block - p.codes) / line_bytes + half * lines;
  const std::size_t apart = p.panel_bytes / (line_bytes * places) * line_bytes;
  const std::size_t first = lines % places == 0 ? 0 : before % places; // a constant, but for odd lines
  const byte* const next = p.codes + panels_at_once * p.panel_bytes + before / places * line_bytes;
  for (std::size_t line = first; line < first + lines; ++line) {
    const byte* const at = next + line % places * apart + line / places * line_bytes;
    __builtin_prefetch(at, 0, 2), __builtin_prefetch(at + p.panel_bytes, 0, 2);
  }
}

/// Asks for scales and zero points that are read prefetch_groups groups after those at a place in the first panel.
template <std::size_t P, bool Codes = false>
SINQ_INLINE void prefetch_lanes(const panel_product& p, std::size_t lanes) {
  constexpr std::size_t prefetch_groups = 8;
  std::size_t at = lanes + prefetch_groups * panel_rows;
  if (at >= p.aux_apart) at += p.aux_apart;
  for (const panel_lanes* const part : {&p.scale, &p.zero}) {
    const bool coded = Codes && part->codes != nullptr;
    const byte* const stored = coded ? part->codes : part->halves;
    const std::size_t size = coded ? 1 : sizeof(float16);
    if (stored != nullptr)
      for (std::size_t n = 0; n < P; ++n) __builtin_prefetch(stored + (n * p.aux_apart + at) * size);
  }
}

/// What a step of bytes adds to W rows of a token: y += s (unit dot - z sum).
/// @param dot  W sums of 32 bits, in any vector
template <std::size_t W, class Dot>
SINQ_INLINE void add_step(const vec<float, W>& s, const vec<float, W>& z, const Dot& dot, float unit, float sum,
                          float* y) {
  static_assert(sizeof dot == W * sizeof(std::int32_t));
  vec<std::int32_t, W> whole;
  vec<float, W> before;
  load(&dot, whole);
  load(y, before);
  store(before + s * (__builtin_convertvector(whole, vec<float, W>) * unit - z * sum), y);
}

} // namespace sinq::detail
