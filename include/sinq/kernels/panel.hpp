#pragma once

#include "../core/wide.hpp"
#include "../pack/panels.hpp"
#include "activations.hpp"

#include <type_traits>

namespace sinq::detail {

/// Panels that go through a kernel together, so that a token that is loaded serves both.
inline constexpr std::size_t panels_at_once = 2;

/// What a kernel multiplies: one or two panels of 16 rows by some tokens, y[m][r] = sum_j V[r][j] x'[m][j].
///   floats:  y[m][r] = sum_n s[g(n)][r] (sum_{j in segment n} level[code[r][j]] x'[m][j] - z[g(n)][r] sum[m][n])
///   bytes:   y[m][r] = sum_n s[g(n)][r] (unit[m][n] sum_{j in step n} v[code[r][j]] q[m][j] - z[g(n)][r] sum[m][n])
struct panel_product {
  std::size_t panels;      ///< 1 or 2
  const byte* codes;       ///< [panels x blocks] of block_bytes(bits)
  std::size_t panel_bytes; ///< of the codes of a panel
  std::size_t groups;
  const float* scale; ///< [panels x G x 16]
  const float* zero;  ///< [panels x G x 16]
  float* y;           ///< [panels x tokens x 16]

  const float* levels;             ///< of a codebook, or nullptr: codes stand for themselves
  const std::uint8_t* byte_levels; ///< [16] v of a codebook for bytes, or nullptr

  std::size_t tokens;
  std::size_t steps;       ///< sums of a token
  const float* sum;        ///< as in activations
  const segment* segments; ///< [steps] of floats
  const float* values;     ///< [tokens x stride] of floats
  std::size_t stride;
  const std::int8_t* bytes; ///< as in activations
  const float* unit;        ///< as in activations
  std::size_t step;         ///< columns of a step of bytes
  std::size_t group_size;   ///< a multiple of step, or at least all columns

  /// One panel alone.
  [[nodiscard]] panel_product panel(std::size_t n) const {
    panel_product one = *this;
    one.panels = 1;
    one.codes += n * panel_bytes;
    one.scale += n * groups * panel_rows;
    one.zero += n * groups * panel_rows;
    one.y += n * tokens * panel_rows;
    return one;
  }
};

/// Calls f with the size of a strip as a std::integral_constant.
template <class F>
void with_strip(std::size_t size, F&& f) {
  switch (size) {
  case 8: return f(std::integral_constant<std::size_t, 8>{});
  case 4: return f(std::integral_constant<std::size_t, 4>{});
  case 2: return f(std::integral_constant<std::size_t, 2>{});
  default: return f(std::integral_constant<std::size_t, 1>{});
  }
}

} // namespace sinq::detail
