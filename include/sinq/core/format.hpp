#pragma once

#include "config.hpp"
#include "dtype.hpp"

#include <array>
#include <cstddef>
#include <string_view>

namespace sinq {

/// What a code stands for: the grid of levels between which a quantizer chooses. levels.hpp has the values.
enum class grid : std::uint8_t {
  uniform, ///< level[code] = code
  nf4,     ///< the 16 levels of NormalFloat4
  nf3,     ///< the 8 levels of NormalFloat3
  custom,  ///< 2^bits levels that are stored with the matrix
};

/// How the zero point of an asymmetric group is chosen.
enum class zero_mode : std::uint8_t {
  rounded,    ///< an integer, so that a weight of zero stays zero (the reference)
  fractional, ///< exactly where the smallest weight falls on code 0
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

/// Bit widths that scales and zero points can be quantized to.
inline constexpr std::array<int, 4> supported_aux_bits{4, 5, 6, 8};

[[nodiscard]] constexpr bool is_supported_aux_bits(int bits) {
  for (const int width : supported_aux_bits)
    if (width == bits) return true;
  return false;
}

/// Shape and storage of a quantized weight, without its data: all that is needed to count bytes and to find an element.
/// W = V R,  V[i][j] = scale[i][g] * (level[code[i][j]] - zero[i][g]) * t[i / tile_rows][j],  g = j / group_size
/// R is the identity, or the Walsh-Hadamard rotation of math/hadamard.hpp.
/// scale[i][g] is stored as it is, or as a code u of scale_bits under a scale of its super-group of groups,
///   scale[i][g] = scale_base[i][g / super_group] * u,
/// and a zero point as it is, or as a code u of zero_bits, counted from the middle of the grid,
///   zero[i][g] = symmetric_zero() + zero_base[i][g / super_group] * (u - 2^(zero_bits - 1)).
struct matrix_format {
  std::size_t rows = 0;        ///< N, outputs
  std::size_t cols = 0;        ///< K, inputs
  int bits = 4;                ///< width of a code
  std::size_t group_size = 64; ///< columns that share a scale; the last group of a row is shorter if K is not divisible
  std::size_t tile_rows = 0;   ///< rows that share a row of t; 0: all
  std::size_t rotation = 0;    ///< length of the blocks of columns that R rotates, a power of two; 0: R is the identity
  sinq::grid grid = sinq::grid::uniform;
  aux_dtype aux = aux_dtype::f16;    ///< of scales and zero points, or of scale_base and zero_base
  int scale_bits = 0;                ///< 0: scales are stored as aux
  int zero_bits = 0;                 ///< 0: zero points are stored as aux
  std::size_t super_group = 0;       ///< groups of a row that share scale_base and zero_base; 0: all
  bool has_zero = true;              ///< false: every zero point is symmetric_zero()
  bool has_col_scale = false;        ///< false: t is 1 everywhere and not stored
  dtype col_scale_type = dtype::f16; ///< f16, bf16, f32 or f8_e4m3; as packed, f32 where t leaves the range of f16

  /// G, the groups of a row.
  [[nodiscard]] constexpr std::size_t groups() const { return ceil_div(cols, group_size); }
  /// Columns of group g, group_size for all but the last.
  [[nodiscard]] constexpr std::size_t group_cols(std::size_t g) const {
    const std::size_t begin = g * group_size;
    return cols - begin < group_size ? cols - begin : group_size;
  }
  /// Rows of a tile that is not the last.
  [[nodiscard]] constexpr std::size_t tile_height() const {
    return tile_rows == 0 || tile_rows > rows ? rows : tile_rows;
  }
  /// Rows of t.
  [[nodiscard]] constexpr std::size_t row_tiles() const { return tile_rows == 0 ? 1 : ceil_div(rows, tile_rows); }
  /// The row of t that belongs to row i.
  [[nodiscard]] constexpr std::size_t row_tile(std::size_t i) const { return tile_rows == 0 ? 0 : i / tile_rows; }
  /// Super-groups of a row.
  [[nodiscard]] constexpr std::size_t super_groups() const {
    return super_group == 0 ? 1 : ceil_div(groups(), super_group);
  }
  /// The super-group of group g.
  [[nodiscard]] constexpr std::size_t super_group_of(std::size_t g) const {
    return super_group == 0 ? 0 : g / super_group;
  }
  /// The zero point of every group where none is stored: the middle of a uniform grid, 0 of a codebook.
  [[nodiscard]] constexpr float symmetric_zero() const {
    return grid == sinq::grid::uniform ? static_cast<float>(max_code(bits)) * 0.5f : 0.0f;
  }

  friend constexpr bool operator==(const matrix_format&, const matrix_format&) = default;

private:
  [[nodiscard]] static constexpr std::size_t ceil_div(std::size_t count, std::size_t by) {
    return count / by + (count % by != 0 ? 1 : 0);
  }
};

} // namespace sinq
