#pragma once

#include "types.hpp"

#include <array>
#include <optional>
#include <string_view>

namespace sinq {

/// What a code stands for: the grid of levels between which a quantizer chooses.
enum class grid : std::uint8_t {
  uniform, ///< level[code] = code
};

/// The type in which scales, zero points and column scales are stored.
enum class aux_dtype : std::uint8_t { f16, bf16, f32 };

[[nodiscard]] constexpr dtype storage(aux_dtype type) {
  switch (type) {
  case aux_dtype::f16: return dtype::f16;
  case aux_dtype::bf16: return dtype::bf16;
  case aux_dtype::f32: break;
  }
  return dtype::f32;
}

/// Bit widths that can be packed.
inline constexpr std::array<int, 6> supported_bits{2, 3, 4, 5, 6, 8};

[[nodiscard]] constexpr bool is_supported_bits(int bits) {
  for (const int width : supported_bits)
    if (width == bits) return true;
  return false;
}

/// Number of levels minus one: the largest code of that width.
[[nodiscard]] constexpr int max_code(int bits) {
  return (1 << bits) - 1;
}

/// Shape and storage of a quantized weight, without its data: all that is needed to count bytes and to find an element.
/// W[i][j] = scale[i][j / group_size] * (level[code[i][j]] - zero[i][j / group_size]) * t[j]
struct matrix_format {
  std::size_t rows = 0;        ///< N, outputs
  std::size_t cols = 0;        ///< K, inputs
  int bits = 4;                ///< width of a code
  std::size_t group_size = 64; ///< columns that share a scale; the last group of a row is shorter if K is not divisible
  sinq::grid grid = sinq::grid::uniform;
  aux_dtype aux = aux_dtype::f16;
  bool has_zero = true;              ///< false: every zero point is the middle of the grid, max_code / 2
  bool has_col_scale = false;        ///< false: t is 1 everywhere and not stored
  dtype col_scale_type = dtype::f16; ///< as packed: that of aux, or f32 where t leaves the range of f16

  /// G, the groups of a row.
  [[nodiscard]] constexpr std::size_t groups() const { return cols / group_size + (cols % group_size != 0 ? 1 : 0); }
  /// Columns of group g, group_size for all but the last.
  [[nodiscard]] constexpr std::size_t group_cols(std::size_t g) const {
    const std::size_t begin = g * group_size;
    return cols - begin < group_size ? cols - begin : group_size;
  }
  /// The zero point of every group where none is stored.
  [[nodiscard]] constexpr float symmetric_zero() const { return static_cast<float>(max_code(bits)) * 0.5f; }

  friend constexpr bool operator==(const matrix_format&, const matrix_format&) = default;
};

} // namespace sinq
