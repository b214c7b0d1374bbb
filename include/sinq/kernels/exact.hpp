#pragma once

#include "panel.hpp"

#include <array>
#include <utility>

/// The kernel of floats, for every instruction set. Codes become floats in registers for few tokens; for more, a block
/// of them in the first cache, which every token then reads.
namespace sinq::detail {

/// Tokens up to which codes become floats once for each strip.
inline constexpr std::size_t direct_tokens = 16;

/// The codebook of codes that stand for themselves.
inline constexpr std::array<float, 16> whole_numbers{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/// Floats of one block of one panel: that of row r, column j is at 16 j + r.
using float_block = std::array<float, block_cols * panel_rows>;

/// to[r] = table[index[r] % W]
template <std::size_t W>
SINQ_INLINE void permute(const vec<float, W>& table, const vec<std::uint32_t, W>& index, vec<float, W>& to) {
#ifdef __clang__
  to = __builtin_shufflevector(table, index);
#else
  to = __builtin_shuffle(table, index);
#endif
}

/// What codes stand for: themselves, or a codebook's levels, those of up to 4 bits in registers.
template <int Bits, bool Codebook, std::size_t W>
class level_reader {
public:
  /// @param levels  [2^Bits] of a codebook
  SINQ_INLINE explicit level_reader(const float* levels) : levels_{levels} {
    if constexpr (in_registers) {
      alignas(64) std::array<float, 16> padded{};
      for (std::size_t n = 0; n < std::size_t{1} << Bits; ++n) padded[n] = levels[n];
      for (std::size_t n = 0; n < 16 / W; ++n) load(padded.data() + n * W, table_[n]);
    }
  }

  /// Column b of a quad of codes.
  SINQ_INLINE void operator()(const vec<std::uint32_t, W>& quad, std::size_t b, vec<float, W>& level) const {
    const vec<std::uint32_t, W> code = quad >> static_cast<std::uint32_t>(8 * b);
    if constexpr (in_registers) {
      permute<W>(table_[0], code, level);
      for (std::size_t n = 1; n < 16 / W; ++n) {
        vec<float, W> other;
        permute<W>(table_[n], code, other);
        level = (code & static_cast<std::uint32_t>(16 - W)) == static_cast<std::uint32_t>(n * W) ? other : level;
      }
    } else if constexpr (Codebook) {
      std::array<float, W> each;
      for (std::size_t r = 0; r < W; ++r) each[r] = levels_[code[r] & 0xffu];
      load(each.data(), level);
    } else {
      level = __builtin_convertvector(__builtin_convertvector(code & 0xffu, vec<std::int32_t, W>), vec<float, W>);
    }
  }

private:
  static constexpr bool in_registers = Codebook && Bits <= 4 && W > 1;

  const float* levels_;
  vec<float, W> table_[16 / W];
};

/// Writes the levels of a block.
template <int Bits, bool Codebook>
struct expand_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const byte* block, const float* levels, float_block& w) {
    const level_reader<Bits, Codebook, W> level_of{levels};
    for (std::size_t quad = 0; quad < block_cols / 4; ++quad)
      for (std::size_t lane = 0; lane < panel_rows; lane += W) {
        vec<std::uint32_t, W> codes;
        load_quad<Bits, W>(block, quad / 8, quad % 8, lane, codes);
        for (std::size_t b = 0; b < 4; ++b) {
          vec<float, W> level;
          level_of(codes, b, level);
          store(level, w.data() + (4 * quad + b) * panel_rows + lane);
        }
      }
  }
};

/// Sums of one segment, of T tokens and P panels: those of T < 4 are 4 / T chains that do not wait for each other, the
/// one of a column being its number within the segment modulo their count.
template <std::size_t T, std::size_t P, std::size_t W>
struct segment_sums {
  static constexpr std::size_t chains = T >= 4 ? 1 : 4 / T;

  /// Adds the products of a column.
  SINQ_INLINE void add(const vec<float, W> (&level)[P], const float* const (&x)[T], std::size_t j, std::size_t chain) {
    for (std::size_t m = 0; m < T; ++m)
      for (std::size_t n = 0; n < P; ++n) dot[n][m][chain] += level[n] * x[m][j];
  }
  /// y += s (dot - z sum)
  SINQ_INLINE void finish(const panel_product& p, std::size_t n, std::size_t token, std::size_t lane) {
    const std::size_t group = p.segments[n].group;
    for (std::size_t panel = 0; panel < P; ++panel) {
      vec<float, W> scale, zero, y;
      load(p.scale.floats + panel * p.aux_apart + group * panel_rows + lane, scale);
      load(p.zero.floats + panel * p.aux_apart + group * panel_rows + lane, zero);
      for (std::size_t m = 0; m < T; ++m) {
        for (std::size_t c = 1; c < chains; ++c) dot[panel][m][0] += dot[panel][m][c];
        float* const to = p.y + (panel * p.tokens + token + m) * panel_rows + lane;
        load(to, y);
        store(y + scale * (dot[panel][m][0] - zero * p.sum[sum_index({token, T}, n, p.steps) + m]), to);
      }
    }
  }

  vec<float, W> dot[P][T][chains]{};
};

/// Adds one segment to y of T tokens, from the floats of its block. Vectors of 16 rows take two panels together: a
/// value of x that is loaded serves both, and there are registers for their sums.
template <std::size_t T>
struct segment_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const panel_product& p, const float_block* w, std::size_t n, std::size_t token) {
    if constexpr (W == panel_rows)
      multiply<W, 2>(p, w, n, token);
    else
      for (std::size_t panel = 0; panel < panels_at_once; ++panel) multiply<W, 1>(p.panel(panel), w + panel, n, token);
  }

private:
  template <std::size_t W, std::size_t P>
  SINQ_INLINE static void multiply(const panel_product& p, const float_block* w, std::size_t n, std::size_t token) {
    const segment& part = p.segments[n];
    const float* x[T];
    for (std::size_t m = 0; m < T; ++m) x[m] = p.values + (token + m) * p.stride + part.begin;
    const std::size_t count = part.end - part.begin;
    constexpr std::size_t chains = segment_sums<T, P, W>::chains;
    for (std::size_t lane = 0; lane < panel_rows; lane += W) {
      const float* const from = w->data() + part.begin % block_cols * panel_rows + lane;
      segment_sums<T, P, W> sums;
      std::size_t j = 0;
      for (; j + chains <= count; j += chains)
        for (std::size_t c = 0; c < chains; ++c) add_column(from, x, j + c, c, sums);
      for (; j < count; ++j) add_column(from, x, j, j % chains, sums);
      sums.finish(p, n, token, lane);
    }
  }
  template <std::size_t W, std::size_t P>
  SINQ_INLINE static void add_column(const float* from, const float* const (&x)[T], std::size_t j, std::size_t chain,
                                     segment_sums<T, P, W>& sums) {
    vec<float, W> level[P];
    for (std::size_t panel = 0; panel < P; ++panel)
      load(from + panel * std::tuple_size_v<float_block> + j * panel_rows, level[panel]);
    sums.add(level, x, j, chain);
  }
};

/// Adds every segment to y of T tokens, straight from codes. @pre segments begin at multiples of 32 columns; not
/// scalar, and vectors of 16 lanes look up codes of up to 4 bits
template <int Bits, bool Codebook, std::size_t T>
struct direct_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const panel_product& p, std::size_t token) {
    if constexpr (W == panel_rows && (Codebook || Bits > 4))
      multiply<W, 2>(p, token);
    else if constexpr (W > 1 && W < panel_rows)
      for (std::size_t panel = 0; panel < panels_at_once; ++panel) multiply<W, 1>(p.panel(panel), token);
  }

private:
  template <std::size_t W, std::size_t P>
  SINQ_INLINE static void multiply(const panel_product& p, std::size_t token) {
    const level_reader<Bits, Codebook, W> level_of{p.levels};
    const float* x[T];
    for (std::size_t m = 0; m < T; ++m) x[m] = p.values + (token + m) * p.stride;
    for (std::size_t n = 0; n < p.steps; ++n)
      for (std::size_t lane = 0; lane < panel_rows; lane += W) {
        segment_sums<T, P, W> sums;
        for (std::size_t j = p.segments[n].begin; j < p.segments[n].end; j += 32)
          add_half(p, level_of, x, j, lane, sums);
        sums.finish(p, n, token, lane);
      }
  }
  /// Adds 32 columns; those beyond the matrix are zeros.
  template <std::size_t W, std::size_t P>
  SINQ_INLINE static void add_half(const panel_product& p, const level_reader<Bits, Codebook, W>& level_of,
                                   const float* const (&x)[T], std::size_t j, std::size_t lane,
                                   segment_sums<T, P, W>& sums) {
    const byte* const block = p.codes + j / block_cols * block_bytes(Bits);
    prefetch_half<Bits, P>(p, block, j % block_cols / 32);
#pragma GCC unroll 8
    for (std::size_t q = 0; q < 8; ++q) {
      vec<std::uint32_t, W> codes[P];
      for (std::size_t panel = 0; panel < P; ++panel)
        load_quad<Bits, W>(block + panel * p.panel_bytes, j % block_cols / 32, q, lane, codes[panel]);
#pragma GCC unroll 4
      for (std::size_t b = 0; b < 4; ++b) {
        vec<float, W> level[P];
        for (std::size_t panel = 0; panel < P; ++panel) level_of(codes[panel], b, level[panel]);
        sums.add(level, x, j + 4 * q + b, b % segment_sums<T, P, W>::chains);
      }
    }
  }
};

/// Multiplies every token with blocks of floats.
template <int Bits, bool Codebook>
void multiply_blocks(const panel_product& p) {
  alignas(64) std::array<float_block, panels_at_once> w;
  for (std::size_t n = 0; n < p.steps; ++n) {
    const byte* const block = p.codes + p.segments[n].begin / block_cols * block_bytes(Bits);
    if (p.segments[n].begin % block_cols == 0)
      for (std::size_t panel = 0; panel < panels_at_once; ++panel)
        run_wide_fused<expand_loop<Bits, Codebook>>(block + panel * p.panel_bytes, p.levels, w[panel]);
    for_each_strip(p.tokens,
                   [&](auto size, std::size_t token) { run_wide_fused<segment_loop<size()>>(p, w.data(), n, token); });
  }
}
template <int Bits, bool Codebook>
void multiply_direct(const panel_product& p) {
  for_each_strip(p.tokens,
                 [&](auto size, std::size_t token) { run_wide_fused<direct_loop<Bits, Codebook, size()>>(p, token); });
}

/// Multiplies two panels. Numerics: f32; at most 64 products in a chain, then a segment's sum enters y.
template <int Bits>
void multiply_exact(const panel_product& given) {
  panel_product p = given;
  std::fill_n(p.y, panels_at_once * p.tokens * panel_rows, 0.0f);
  const bool direct = p.tokens <= direct_tokens && p.group_size % 32 == 0 && current_isa() != isa::scalar;
  if constexpr (Bits <= 4) {
    // vectors of 16 lanes look up codes sooner than they convert them
    if (p.levels == nullptr && vector_floats(current_isa()) == panel_rows) p.levels = whole_numbers.data();
    if (p.levels != nullptr) return direct ? multiply_direct<Bits, true>(p) : multiply_blocks<Bits, true>(p);
  } else if (p.levels != nullptr) {
    return multiply_blocks<Bits, true>(p);
  }
  return direct ? multiply_direct<Bits, false>(p) : multiply_blocks<Bits, false>(p);
}

} // namespace sinq::detail
