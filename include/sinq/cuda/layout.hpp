#pragma once

#include "../core/format.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

#if defined(__CUDACC__)
#define SINQ_HOST_DEVICE __host__ __device__
#else
#define SINQ_HOST_DEVICE
#endif

namespace sinq::cuda {

/// How codes are kept on the device.
enum class code_form : std::uint8_t {
  u2,     ///< 2 bits, code q is the level q
  u3,     ///< 3 bits, in planes of 2 bits and 1 bit
  u4,     ///< 4 bits
  u8,     ///< 8 bits; codes of 5 and 6 bits too
  table4, ///< 4 bits into a table of 16 levels: NF4, and every other codebook of up to 4 bits
};

[[nodiscard]] SINQ_HOST_DEVICE constexpr unsigned bits_of(code_form form) {
  return form == code_form::u2 ? 2 : form == code_form::u3 ? 3 : form == code_form::u8 ? 8 : 4;
}

inline constexpr unsigned tile_rows = 16;   ///< rows of a tile of weights, as many as an mma has
inline constexpr unsigned unit_cols = 128;  ///< columns of a unit of weights
inline constexpr unsigned token_tile = 8;   ///< tokens of a tile of activations, as many as an mma has
inline constexpr unsigned least_group = 32; ///< columns of the smallest group

/// Weights on the device: units of 16 rows x 128 columns, each one record of codes and auxiliaries, so that a kernel
/// reads one stream. Rows and columns are filled up with codes, scales and zero points of 0.
///
///   record (tile, unit) at (tile * units + unit) * record_bytes
///     codes        256 * bits bytes     lane l = 4 g + p of a warp owns, of rows g and g + 8, the columns
///                                       64 b + 32 h + 8 p + 2 i + e         b, h, e = 0, 1   i = 0 .. 3
///     auxiliaries  [g = 0 .. 7][group][row g, row g + 8] {scale, zero point} in f16
///
///   Pair n = 4 h + i, halves e, of row r (0: g, 1: g + 8) and block b lies in
///     u4      word [b][lane][r][h]        bits 4 i (e = 0) and 4 i + 16 (e = 1)
///     table4  word [b][lane][r][h]        byte i, lower half (e = 0) and upper half (e = 1)
///     u2      word [b][lane][r]           bits 2 n and 2 n + 16
///     u3      word [b][lane][r]           its lower two bits as u2; then [b][lane], bits n + 8 r and n + 8 r + 16
///     u8      word [b][r][lane][n / 2]    bytes n % 2 and n % 2 + 2
///
///        columns of a block of 64      0 .. 7   8 .. 15  16 .. 23  24 .. 31 | 32 .. 39  40 .. 47  48 .. 55  56 .. 63
///        lane p of the four of a row     0        1         2         3     |    0         1         2         3
///        step of 16 columns of an mma    the first four of each eight: 0, the others: 1   |   2, 3
///
/// So an mma never mixes groups of 32 columns, and eight neighbouring activations are one 16-byte load.
struct device_format {
  unsigned rows = 0; ///< N
  unsigned cols = 0; ///< K
  code_form form = code_form::u4;
  unsigned group_size = 64; ///< 32, 64 or 128; larger groups are kept as several equal ones

  [[nodiscard]] SINQ_HOST_DEVICE constexpr unsigned tiles() const { return (rows + tile_rows - 1) / tile_rows; }
  [[nodiscard]] SINQ_HOST_DEVICE constexpr unsigned units() const { return (cols + unit_cols - 1) / unit_cols; }
  [[nodiscard]] SINQ_HOST_DEVICE constexpr unsigned unit_groups() const { return unit_cols / group_size; }
  [[nodiscard]] SINQ_HOST_DEVICE constexpr unsigned groups() const { return units() * unit_groups(); }
  [[nodiscard]] SINQ_HOST_DEVICE constexpr unsigned code_bytes() const { return 256 * bits_of(form); }
  [[nodiscard]] SINQ_HOST_DEVICE constexpr unsigned record_bytes() const { return code_bytes() + 64 * unit_groups(); }
  [[nodiscard]] SINQ_HOST_DEVICE constexpr std::size_t weight_bytes() const {
    return std::size_t{tiles()} * units() * record_bytes();
  }
};

/// Where one code lies in a record of weights.
struct code_place {
  unsigned byte;
  unsigned shift; ///< in the byte; of the lower two bits of u3
  unsigned high_byte;
  unsigned high_shift; ///< of the third bit of u3
};

/// The place of the code of row i and column j of a unit. @pre i < 16, j < 128
[[nodiscard]] SINQ_HOST_DEVICE constexpr code_place place_of(code_form form, unsigned i, unsigned j) {
  const unsigned b = j / 64, h = j / 32 % 2, p = j / 8 % 4, pair = j / 2 % 4, e = j % 2;
  const unsigned r = i / 8, lane = i % 8 * 4 + p, n = 4 * h + pair;
  const auto at = [](unsigned word, unsigned bit) { return code_place{4 * word + bit / 8, bit % 8, 0, 0}; };
  switch (form) {
  case code_form::u2: return at((b * 32 + lane) * 2 + r, 2 * n + 16 * e);
  case code_form::u3: {
    code_place place = at((b * 32 + lane) * 2 + r, 2 * n + 16 * e);
    const code_place high = at(128 + b * 32 + lane, n + 8 * r + 16 * e);
    place.high_byte = high.byte;
    place.high_shift = high.shift;
    return place;
  }
  case code_form::u8: return at(((b * 2 + r) * 32 + lane) * 4 + n / 2, 8 * (n % 2) + 16 * e);
  case code_form::table4: return at((b * 32 + lane) * 4 + r * 2 + h, 8 * pair + 4 * e);
  case code_form::u4: break;
  }
  return at((b * 32 + lane) * 4 + r * 2 + h, 4 * pair + 16 * e);
}

/// Byte of the scale of a row and group of a unit in its record; the zero point is the next two bytes.
[[nodiscard]] SINQ_HOST_DEVICE constexpr unsigned aux_place(const device_format& f, unsigned i, unsigned group) {
  return f.code_bytes() + ((i % 8 * f.unit_groups() + group) * 2 + i / 8) * 4;
}

/// Activations x' = x t as kernels read them: for each unit of 128 columns, a record for each 8 tokens.
///
///   record (unit, token tile) at (unit * token_tiles + tile) * activation_bytes
///     values  [32 h' .. of 4][lane 4 n + p][8]   x' of token n, columns 32 h' + 8 p .. + 7, 16 bits each, 2048 bytes
///     sums    [group][token n]                   f32, of the x' of a group as they are stored
///     unit    [4]                                f32, what the sums of a group are to be multiplied by
[[nodiscard]] SINQ_HOST_DEVICE constexpr unsigned activation_bytes(const device_format& f) {
  return 2048 + f.unit_groups() * token_tile * 4 + 16;
}
inline constexpr unsigned activation_sum_place = 2048;
[[nodiscard]] SINQ_HOST_DEVICE constexpr unsigned activation_unit_place(const device_format& f) {
  return activation_sum_place + f.unit_groups() * token_tile * 4;
}

/// Sizes and places in records of weights and activations, where the form and the groups of a unit are known.
template <code_form Form, unsigned Groups>
struct unit_shape {
  static constexpr unsigned code_bytes = 256 * bits_of(Form);
  static constexpr unsigned record_bytes = code_bytes + 64 * Groups;
  static constexpr unsigned unit_place = activation_sum_place + Groups * token_tile * 4;
  static constexpr unsigned activation_bytes = unit_place + 16;
};

/// A weight in the layout of the device while it is in the memory of the host: what is uploaded.
/// V[i][j] = s[i][g] (level - z[i][g]) t[j] unit[g]; |t| < 1 for every column, so that x t overflows nothing, and unit
/// is the power of two that this takes.
struct device_image {
  device_format format;
  std::vector<std::uint8_t> weights; ///< weight_bytes()
  std::vector<float> t;              ///< [units * 128], 0 behind the last column
  std::vector<float> unit;           ///< [groups]
  std::vector<float> levels;         ///< [16] of table4, otherwise empty
};

} // namespace sinq::cuda
