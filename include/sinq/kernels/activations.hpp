#pragma once

#include "../core/aligned_buffer.hpp"
#include "../core/parallel.hpp"
#include "../core/weight_view.hpp"
#include "../math/block_sums.hpp"
#include "../math/hadamard.hpp"
#include "../pack/panels.hpp"

#include <algorithm>
#include <cmath>
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

/// The strip that begins with that token.
[[nodiscard]] constexpr strip strip_at(std::size_t token, std::size_t tokens) {
  std::size_t size = token < tokens ? 8 : 0;
  while (size > tokens - token) size /= 2;
  return {token, size};
}

/// Where the sum of a step of a strip's first token lies; those of the other tokens follow.
[[nodiscard]] constexpr std::size_t sum_index(const strip& s, std::size_t step, std::size_t steps) {
  return s.begin * steps + step * s.size;
}

/// What a kernel multiplies with.
enum class activation_form : std::uint8_t {
  floats,
  bytes, ///< with a scale for each step
  tiles, ///< of bf16
};
/// Tokens and columns of a tile.
inline constexpr std::size_t bf16_tile_tokens = 16, bf16_tile_cols = 32;

/// Some tokens as the kernels of one row tile want them: x' = (R x) t.
struct activations {
  std::size_t tokens = 0;
  std::size_t stride = 0;            ///< columns in whole blocks
  std::size_t steps = 0;             ///< sums of a token: segments, or steps of bytes
  aligned_buffer<float> values;      ///< [tokens x stride], zeros beyond K; empty if bytes are meant
  aligned_buffer<std::int8_t> bytes; ///< strip by strip [steps x size x step] x' rounded to multiples of unit
  aligned_buffer<byte> tiles; ///< [tokens / 16, rounded up, x stride / 32 x 16 x 32] of bf16, zeros beyond M and K
  std::vector<float> sum;     ///< strip by strip [steps x size] sum of a step's x', as they are in values or bytes
  std::vector<float> unit;    ///< the same, max |x'| / 127 of a step; empty for floats
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

SINQ_SEPARATE_ROUNDING_BEGIN

/// x ~ unit q with |q| <= 127, and sum = the sum of unit q; n is a multiple of 16.
struct bytes_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const float* x, std::size_t n, std::int8_t* q, float& unit, float& sum) {
    vec<float, W> values, most{};
    for (std::size_t j = 0; j < n; j += W) {
      load(x + j, values);
      const vec<float, W> size = values < 0.0f ? -values : values;
      most = size > most ? size : most;
    }
    most_of_lanes<W>(most);
    unit = std::max(most[0] / 127, std::numeric_limits<float>::min());
    const float inverse = 1 / unit;
    vec<std::int32_t, W> total{};
    for (std::size_t j = 0; j < n; j += W) {
      load(x + j, values);
      const vec<float, W> rounded = (values * inverse + 0x1.8p23f) - 0x1.8p23f;
      const vec<std::int32_t, W> whole = __builtin_convertvector(rounded, vec<std::int32_t, W>);
      store(__builtin_convertvector(whole, vec<std::int8_t, W>), q + j);
      total += whole;
    }
    std::int32_t all = 0;
    for (std::size_t lane = 0; lane < W; ++lane) all += total[lane];
    sum = unit * static_cast<float>(all);
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

/// Rounds a step of x' to bytes. One with a value that is not finite gets unit NaN, and so its outputs.
inline void round_to_bytes(std::span<const float> x, std::int8_t* q, float& unit, float& sum) {
  if (all_finite(x)) return run_wide<bytes_loop>(x.data(), x.size(), q, unit, sum);
  std::fill_n(q, x.size(), std::int8_t{0});
  unit = sum = std::numeric_limits<float>::quiet_NaN();
}

/// Prepares tokens for the rows of one tile.
class activation_writer {
public:
  /// @param x     [M x K] of any floating type
  /// @param t     [K], or nothing
  /// @param step  int8_step(f), for bytes
  activation_writer(const weight_view& x, const matrix_format& f, std::span<const float> t, activation_form form,
                    std::size_t step, std::span<const segment> segments)
      : x_{x}, f_{f}, t_{t}, form_{form}, step_{step}, segments_{segments} {}

  [[nodiscard]] activations operator()(std::size_t token_begin, std::size_t tokens, executor& threads) const {
    activations a = allocate(tokens);
    constexpr std::size_t tokens_of_task = 8; // a strip, or the strips of the last tokens
    const auto write = [&](std::size_t begin, std::size_t end) -> result<void> {
      std::vector<float> row(a.stride);
      strip s = strip_at(begin, tokens);
      for (std::size_t m = begin; m < end; ++m) {
        if (m == s.begin + s.size) s = strip_at(m, tokens);
        load(token_begin + m, row);
        place(row, s, m, a);
      }
      return {};
    };
    (void)parallel_for(threads, tokens, tokens_of_task, write);
    return a;
  }

private:
  [[nodiscard]] activations allocate(std::size_t tokens) const {
    activations a;
    a.tokens = tokens;
    a.stride = (f_.cols + block_cols - 1) / block_cols * block_cols;
    if (form_ == activation_form::tiles) {
      const std::size_t rows = (tokens + bf16_tile_tokens - 1) / bf16_tile_tokens * bf16_tile_tokens;
      a.tiles = aligned_buffer<byte>{rows * a.stride * 2};
      return a;
    }
    const bool bytes = form_ == activation_form::bytes;
    a.steps = bytes ? (f_.cols + step_ - 1) / step_ : segments_.size();
    a.sum.resize(tokens * a.steps);
    a.unit.resize(bytes ? tokens * a.steps : 0);
    if (bytes)
      a.bytes = aligned_buffer<std::int8_t>{tokens * a.steps * step_, aligned_buffer<std::int8_t>::uninitialized};
    else
      a.values = aligned_buffer<float>{tokens * a.stride, aligned_buffer<float>::uninitialized};
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
      for (std::size_t n = 0; n < a.steps; ++n)
        round_to_bytes(row.subspan(n * step_, step_), a.bytes.data() + at(n) * step_, a.unit[at(n)], a.sum[at(n)]);
      return;
    case activation_form::tiles:
      for (std::size_t j = 0; j < a.stride; j += bf16_tile_cols) {
        const std::size_t tile = m / bf16_tile_tokens * (a.stride / bf16_tile_cols) + j / bf16_tile_cols;
        byte* const to = a.tiles.data() + (tile * bf16_tile_tokens + m % bf16_tile_tokens) * bf16_tile_cols * 2;
        store_floats(row.subspan(j, bf16_tile_cols), dtype::bf16, to);
      }
    }
  }

  const weight_view& x_;
  const matrix_format& f_;
  std::span<const float> t_;
  activation_form form_;
  std::size_t step_;
  std::span<const segment> segments_;
};

} // namespace sinq::detail
