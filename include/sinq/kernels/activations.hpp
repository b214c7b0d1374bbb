#pragma once

#include "../core/parallel.hpp"
#include "../core/weight_view.hpp"
#include "../math/block_sums.hpp"
#include "../math/hadamard.hpp"
#include "../pack/panels.hpp"
#include "kept_buffer.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace sinq::detail {

/// Columns [begin, end) of one block, all of one group.
struct segment {
  std::size_t begin;
  std::size_t end;
  std::size_t group;
};

/// The segments of a row: every group, cut where a block ends.
[[nodiscard]] inline std::vector<segment> segments_of(const matrix_format& f) {
  std::vector<segment> found;
  for (std::size_t begin = 0; begin < f.cols;) {
    const std::size_t group = begin / f.group_size;
    const std::size_t end = std::min({f.cols, (group + 1) * f.group_size, (begin / block_cols + 1) * block_cols});
    found.push_back({begin, end, group});
    begin = end;
  }
  return found;
}

/// Columns that share a scale where activations are quantized: 64, or 32 for groups that are no multiple of 64; 0 where
/// the kernels of bytes have no such step.
[[nodiscard]] constexpr std::size_t int8_step(const matrix_format& f) {
  if (f.grid != grid::uniform && f.bits > 4) return 0;
  if (f.groups() == 1 || f.group_size % 64 == 0) return 64;
  return f.group_size % 32 == 0 ? 32 : 0;
}

/// Tokens that a kernel takes together: eight, and the rest as four, two and one.
struct strip {
  std::size_t begin;
  std::size_t size;
};

inline constexpr std::size_t most_strip_tokens = 8;

/// The strip that begins with that token.
[[nodiscard]] constexpr strip strip_at(std::size_t token, std::size_t tokens) {
  std::size_t size = token < tokens ? most_strip_tokens : 0;
  while (size > tokens - token) size /= 2;
  return {token, size};
}

/// As many tokens, or so many more, up to `most_more`, that the last ones are a single strip: every strip reads all
/// codes, which takes longer than some tokens of zeros.
[[nodiscard]] constexpr std::size_t filled_up(std::size_t tokens, std::size_t most_more) {
  const std::size_t rest = tokens % most_strip_tokens;
  const std::size_t more = rest == 0 ? 0 : std::bit_ceil(rest) - rest;
  return more <= most_more ? tokens + more : tokens;
}

/// Where the sum of a step of a strip's first token lies; those of the other tokens follow.
[[nodiscard]] constexpr std::size_t sum_index(const strip& s, std::size_t step, std::size_t steps) {
  return s.begin * steps + step * s.size;
}

/// What a kernel multiplies with.
enum class activation_form : std::uint8_t {
  floats,
  bytes,      ///< with a scale for each step
  byte_tiles, ///< the same in strips of 16 tokens, zeros beyond M
  tiles,      ///< of bf16
};
/// Tokens of a tile, and columns of one of bf16.
inline constexpr std::size_t tile_tokens = 16, bf16_tile_cols = 32;
/// Columns whose tiles of bf16 lie together for all tokens, and are multiplied together.
inline constexpr std::size_t bf16_cols_at_once = 512;

/// Where the tiles of bf16 of some tokens lie, for columns that begin with a multiple of bf16_cols_at_once: those of
/// the other columns at once follow, then the next tokens.
/// @param tokens, stride  of all
[[nodiscard]] constexpr std::size_t bf16_tiles_offset_bytes(std::size_t token, std::size_t begin, std::size_t tokens,
                                                            std::size_t stride) {
  return (begin * tokens + token / tile_tokens * tile_tokens * std::min(bf16_cols_at_once, stride - begin)) * 2;
}

/// Some tokens as the kernels of one row tile want them: x' = (R x) t.
struct activations {
  std::size_t tokens = 0;         ///< in whole tiles or strips, zeros beyond M
  std::size_t stride = 0;         ///< columns in whole blocks
  std::size_t steps = 0;          ///< sums of a token: segments, or steps of bytes
  kept_buffer<float> values;      ///< [tokens x stride], zeros beyond K; empty if bytes are meant
  kept_buffer<std::int8_t> bytes; ///< strip by strip [steps x size x step] x' rounded to multiples of unit
  kept_buffer<byte> tiles; ///< [16 tokens x 32 columns] of bf16, zeros beyond M and K; see bf16_tiles_offset_bytes
  std::vector<float> sum;  ///< strip by strip [steps x size] sum of a step's x', as they are in values or bytes
  std::vector<float> unit; ///< the same, max |x'| / 127 of a step; empty for floats
};

/// x times t.
struct product_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const float* t, std::size_t n, float* x) {
    vec<float, W> a, b;
    std::size_t j = 0;
    for (; j + W <= n; j += W) {
      load(x + j, a);
      load(t + j, b);
      store(a * b, x + j);
    }
    for (; j < n; ++j) x[j] *= t[j];
  }
};

/// Rounds columns of a token to bf16, a row of each tile.
struct bf16_tiles_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const float* x, std::size_t n, byte* to) {
    for (std::size_t j = 0; j < n; j += bf16_tile_cols, to += tile_tokens * bf16_tile_cols * 2)
      to_bfloat16_loop::run<W>(x + j, to, bf16_tile_cols);
  }
};

SINQ_SEPARATE_ROUNDING_BEGIN

/// Steps of x ~ unit q with |q| <= 127, and sum = the sum of unit q. One with a value that is not finite gets unit NaN,
/// and so its outputs. A step is a multiple of 16; the q of the next one lies `apart` bytes on, unit and sum
/// apart / step.
struct bytes_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const float* x, std::size_t steps, std::size_t step, std::size_t apart, std::int8_t* q,
                              float* unit, float* sum) {
    for (; steps > 0; --steps, x += step, q += apart, unit += apart / step, sum += apart / step) {
      const std::uint32_t most = most_bits<W>(x, step);
      if (most >= std::bit_cast<std::uint32_t>(std::numeric_limits<float>::infinity())) {
        std::fill_n(q, step, std::int8_t{0});
        *unit = *sum = std::numeric_limits<float>::quiet_NaN();
        continue;
      }
      *unit = std::max(std::bit_cast<float>(most) / 127, std::numeric_limits<float>::min());
      *sum = *unit * static_cast<float>(round_step<W>(x, step, 1 / *unit, q));
    }
  }

private:
  /// The largest |x|, as its bits: those of infinity and NaN are larger than those of any number.
  template <std::size_t W>
  SINQ_INLINE static std::uint32_t most_bits(const float* x, std::size_t step) {
    vec<std::uint32_t, W> most{}, bits;
    for (std::size_t j = 0; j < step; j += W) {
      load(x + j, bits);
      bits &= 0x7fffffffu;
      most = bits > most ? bits : most;
    }
    most_of_lanes<W>(most);
    return most[0];
  }
  /// Writes q; the sum of q.
  template <std::size_t W>
  SINQ_INLINE static std::int32_t round_step(const float* x, std::size_t step, float inverse, std::int8_t* q) {
    vec<float, W> values;
    vec<std::int32_t, W> total{};
    for (std::size_t j = 0; j < step; j += W) {
      load(x + j, values);
      const vec<float, W> rounded = (values * inverse + 0x1.8p23f) - 0x1.8p23f;
      const vec<std::int32_t, W> whole = __builtin_convertvector(rounded, vec<std::int32_t, W>);
      store(__builtin_convertvector(whole, vec<std::int8_t, W>), q + j);
      total += whole;
    }
    sum_of_lanes<W>(total);
    return total[0];
  }
};

/// Sum of n floats in 16 lanes.
struct float_sum_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const float* x, std::size_t n, float& sum) {
    std::array<float, reduction_lanes> lanes{};
    vec<float, W> values, some;
    std::size_t j = 0;
    for (; j + reduction_lanes <= n; j += reduction_lanes)
      for (std::size_t lane = 0; lane < reduction_lanes; lane += W) {
        load(x + j + lane, values);
        load(lanes.data() + lane, some);
        store(some + values, lanes.data() + lane);
      }
    for (; j < n; ++j) lanes[j % reduction_lanes] += x[j];
    sum = add_lanes(lanes);
  }
};

SINQ_SEPARATE_ROUNDING_END

/// Prepares tokens for the rows of one tile.
class activation_writer {
public:
  /// @param x     [M x K] of any floating type
  /// @param t     [K], or nothing
  /// @param step  int8_step(f), for bytes
  /// @param most_more  tokens of zeros; see filled_up
  activation_writer(const weight_view& x, const matrix_format& f, std::span<const float> t, activation_form form,
                    std::size_t most_more, std::size_t step, std::span<const segment> segments)
      : x_{x}, f_{f}, t_{t}, form_{form}, most_more_{most_more}, step_{step}, segments_{segments} {}

  [[nodiscard]] activations operator()(std::size_t token_begin, std::size_t tokens, executor& threads) const {
    activations a = allocate(tokens);
    const std::size_t tokens_of_task =
        in_tiles() ? tile_tokens : most_strip_tokens; // a strip, or the strips of the last tokens
    const auto write = [&](std::size_t begin, std::size_t end) -> result<void> {
      std::vector<float> row(a.stride);
      strip s = strip_from(begin, a.tokens);
      for (std::size_t m = begin; m < (end == tokens ? a.tokens : end); ++m) {
        if (m == s.begin + s.size) s = strip_from(m, a.tokens);
        if (m < tokens)
          load(token_begin + m, row);
        else
          std::fill(row.begin(), row.end(), 0.0f);
        place(row, s, m, a);
      }
      return {};
    };
    (void)parallel_for(threads, tokens, tokens_of_task, write);
    return a;
  }

private:
  [[nodiscard]] bool in_tiles() const {
    return form_ == activation_form::tiles || form_ == activation_form::byte_tiles;
  }
  /// The strip that begins with that token.
  [[nodiscard]] strip strip_from(std::size_t token, std::size_t tokens) const {
    return in_tiles() ? strip{token, tile_tokens} : strip_at(token, tokens);
  }

  [[nodiscard]] activations allocate(std::size_t tokens) const {
    activations a;
    a.tokens = in_tiles() ? (tokens + tile_tokens - 1) / tile_tokens * tile_tokens : filled_up(tokens, most_more_);
    a.stride = (f_.cols + block_cols - 1) / block_cols * block_cols;
    if (form_ == activation_form::tiles) {
      a.tiles = kept_buffer<byte>{a.tokens * a.stride * 2};
      return a;
    }
    const bool bytes = form_ != activation_form::floats;
    a.steps = bytes ? (f_.cols + step_ - 1) / step_ : segments_.size();
    a.sum.resize(a.tokens * a.steps);
    a.unit.resize(bytes ? a.tokens * a.steps : 0);
    if (bytes)
      a.bytes = kept_buffer<std::int8_t>{a.tokens * a.steps * step_};
    else
      a.values = kept_buffer<float>{a.tokens * a.stride};
    return a;
  }

  /// x' of a token.
  void load(std::size_t m, std::span<float> row) const {
    x_.load(m, 0, row.first(f_.cols));
    std::fill(row.begin() + static_cast<std::ptrdiff_t>(f_.cols), row.end(), 0.0f);
    if (f_.rotation != 0) hadamard_rotate(row.first(f_.cols), f_.rotation);
    run_wide<product_loop>(t_.data(), t_.size(), row.data());
  }

  /// Puts token m, of strip s, where its form has it.
  void place(std::span<const float> row, const strip& s, std::size_t m, activations& a) const {
    const auto at = [&](std::size_t n) { return sum_index(s, n, a.steps) + m - s.begin; };
    switch (form_) {
    case activation_form::floats:
      std::copy(row.begin(), row.end(), a.values.data() + m * a.stride);
      for (std::size_t n = 0; n < a.steps; ++n)
        run_wide<float_sum_loop>(row.data() + segments_[n].begin, segments_[n].end - segments_[n].begin, a.sum[at(n)]);
      return;
    case activation_form::bytes:
    case activation_form::byte_tiles:
      return run_wide<bytes_loop>(row.data(), a.steps, step_, s.size * step_, a.bytes.data() + at(0) * step_,
                                  a.unit.data() + at(0), a.sum.data() + at(0));
    case activation_form::tiles:
      for (std::size_t begin = 0; begin < row.size(); begin += bf16_cols_at_once)
        run_wide<bf16_tiles_loop>(row.data() + begin, std::min(bf16_cols_at_once, row.size() - begin),
                                  a.tiles.data() + bf16_tiles_offset_bytes(m, begin, a.tokens, a.stride) +
                                      m % tile_tokens * bf16_tile_cols * 2);
    }
  }

  const weight_view& x_;
  const matrix_format& f_;
  std::span<const float> t_;
  activation_form form_;
  std::size_t most_more_;
  std::size_t step_;
  std::span<const segment> segments_;
};

} // namespace sinq::detail
