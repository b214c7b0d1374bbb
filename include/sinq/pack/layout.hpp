#pragma once

#include "../core/aligned_buffer.hpp"
#include "../core/error.hpp"
#include "../core/levels.hpp"
#include "code_loops.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>
#include <string>

namespace sinq {

/// The canonical layout, that of files: each row is a little-endian stream of b-bit codes, padded with zero bits to
/// whole 8 bytes.
///
///   code j of a row lies in bits [j b, (j + 1) b) of the row; bit n is bit n % 8 of byte n / 8
///
///   2 bits   byte 0: 3 3 2 2 1 1 0 0
///   3 bits   byte 0: 2 2 1 1 1 0 0 0   byte 1: 5 4 4 4 3 3 3 2   byte 2: 7 7 7 6 6 6 5 5
///   4 bits   byte 0: 1 1 1 1 0 0 0 0
///   5 bits   byte 0: 1 1 1 0 0 0 0 0   byte 1: 3 2 2 2 2 2 1 1   ...  8 codes in 5 bytes
///   6 bits   byte 0: 1 1 0 0 0 0 0 0   byte 1: 2 2 2 2 1 1 1 1   ...  4 codes in 3 bytes
///   8 bits   byte 0: 0 0 0 0 0 0 0 0
///            (high bit on the left, each digit the number of the code that the bit belongs to)
///
///   row i starts at byte i * row_bytes(K); 64 codes fill exactly b 8-byte words
template <int Bits>
struct packed_layout {
  static_assert(is_supported_bits(Bits), "packed_layout: bits must be 2, 3, 4, 5, 6 or 8");
  static constexpr int bits = Bits;

  /// Bytes of a row of `cols` codes: the next multiple of 8.
  [[nodiscard]] static constexpr std::size_t row_bytes(std::size_t cols) {
    return cols / 64 * (8 * Bits) + (cols % 64 * Bits + 63) / 64 * 8;
  }
  /// Bytes of a matrix of codes.
  [[nodiscard]] static constexpr std::size_t packed_bytes(std::size_t rows, std::size_t cols) {
    return rows * row_bytes(cols);
  }

  /// Code j of a row.
  [[nodiscard]] static std::uint8_t code(std::span<const byte> row, std::size_t j) {
    const std::size_t bit = j * Bits;
    unsigned pair = static_cast<unsigned>(row[bit / 8]);
    if (bit % 8 + Bits > 8) pair |= static_cast<unsigned>(row[bit / 8 + 1]) << 8;
    return static_cast<std::uint8_t>((pair >> (bit % 8)) & static_cast<unsigned>(max_code(Bits)));
  }

  /// Packs the codes of a row. @pre every code <= max_code(Bits), row.size() == row_bytes(codes.size())
  static void pack_row(std::span<const std::uint8_t> codes, std::span<byte> row) {
    SINQ_ASSERT(row.size() == row_bytes(codes.size()));
    detail::run_wide<detail::pack_loop<Bits>>(matrix_view<const std::uint8_t>{codes.data(), 1, codes.size()},
                                              row.data(), row.size(), row.size());
  }

  /// Unpacks the codes of a row. @pre row.size() == row_bytes(codes.size())
  static void unpack_row(std::span<const byte> row, std::span<std::uint8_t> codes) {
    SINQ_ASSERT(row.size() == row_bytes(codes.size()));
    detail::run_wide<detail::unpack_loop<Bits>>(row.data(), row.size(), codes.data(), codes.size());
  }
};

/// Calls f with the packed_layout of a run-time width. @pre is_supported_bits(bits)
template <class F>
auto with_layout(int bits, F&& f) -> decltype(f(packed_layout<4>{})) {
  SINQ_ASSERT(is_supported_bits(bits));
  switch (bits) {
  case 2: return f(packed_layout<2>{});
  case 3: return f(packed_layout<3>{});
  case 5: return f(packed_layout<5>{});
  case 6: return f(packed_layout<6>{});
  case 8: return f(packed_layout<8>{});
  default: return f(packed_layout<4>{});
  }
}

/// Bytes of each part of a packed matrix.
struct packed_sizes {
  std::size_t codes = 0;
  std::size_t scale = 0;
  std::size_t zero = 0;
  std::size_t col_scale = 0;
  std::size_t scale_base = 0;
  std::size_t zero_base = 0;
  std::size_t levels = 0;

  [[nodiscard]] constexpr std::size_t total() const {
    return codes + scale + zero + col_scale + scale_base + zero_base + levels;
  }
};

/// Bytes of `count` codes of any supported width in one stream.
[[nodiscard]] inline std::size_t stream_bytes(int bits, std::size_t count) {
  return with_layout(bits, [&](auto layout) { return layout.row_bytes(count); });
}

/// Bytes of each part of a packed matrix of that format. @pre the format is valid (check_format)
[[nodiscard]] inline packed_sizes packed_bytes(const matrix_format& f) {
  const std::size_t groups = f.rows * f.groups();
  const std::size_t aux = size_bytes(storage(f.aux));
  const std::size_t base = f.rows * f.super_groups() * aux;
  packed_sizes sizes;
  sizes.codes = f.rows * stream_bytes(f.bits, f.cols);
  sizes.scale = f.scale_bits == 0 ? groups * aux : stream_bytes(f.scale_bits, groups);
  sizes.scale_base = f.scale_bits == 0 ? 0 : base;
  if (f.has_zero) {
    sizes.zero = f.zero_bits == 0 ? groups * aux : stream_bytes(f.zero_bits, groups);
    sizes.zero_base = f.zero_bits == 0 ? 0 : base;
  }
  if (f.has_col_scale) sizes.col_scale = f.row_tiles() * f.cols * size_bytes(f.col_scale_type);
  if (f.grid == grid::custom) sizes.levels = levels({.bits = f.bits}).size() * sizeof(float);
  return sizes;
}

/// Stored bits for each weight: codes, scales, zero points, t and padding, all counted.
[[nodiscard]] inline double bits_per_weight(const matrix_format& f) {
  return 8.0 * static_cast<double>(packed_bytes(f).total()) /
         (static_cast<double>(f.rows) * static_cast<double>(f.cols));
}

/// Whether a format from outside can be: not empty, known widths, and small enough that no size overflows.
[[nodiscard]] inline result<void> check_format(const matrix_format& f) {
  if (f.rows == 0 || f.cols == 0) return make_error(errc::empty_matrix, "the matrix is ", f.rows, " x ", f.cols);
  if (!is_supported_bits(f.bits))
    return make_error(errc::invalid_argument, "bits is ", f.bits, ", expected 2, 3, 4, 5, 6 or 8");
  if (f.group_size == 0) return make_error(errc::invalid_argument, "group_size is 0, expected >= 1");
  if ((f.grid == grid::nf4 && f.bits != 4) || (f.grid == grid::nf3 && f.bits != 3))
    return make_error(errc::invalid_argument, "bits is ", f.bits, ", expected those of the levels, ",
                      f.grid == grid::nf4 ? "4 of nf4" : "3 of nf3");
  for (const int bits : {f.scale_bits, f.zero_bits})
    if (bits != 0 && !is_supported_aux_bits(bits))
      return make_error(errc::invalid_argument, "scales or zero points of ", bits, " bits, expected 4, 5, 6 or 8");
  if (f.rotation != 0 && (!std::has_single_bit(f.rotation) || f.cols % f.rotation != 0))
    return make_error(errc::invalid_argument, "rotation in blocks of ", f.rotation,
                      ", expected a power of two that divides the ", f.cols, " columns");
  if (f.col_scale_type != dtype::f16 && f.col_scale_type != dtype::bf16 && f.col_scale_type != dtype::f32 &&
      f.col_scale_type != dtype::f8_e4m3)
    return make_error(errc::invalid_argument, "t is ", to_string(f.col_scale_type),
                      ", expected F16, BF16, F32 or F8_E4M3");
  constexpr std::size_t limit = std::size_t{1} << 56;
  if (f.cols > limit / f.rows)
    return make_error(errc::invalid_argument, "the matrix is ", f.rows, " x ", f.cols, ", more than 2^56 elements");
  return {};
}

/// The parts of a quantized weight in their storage types, owned or in a mapped file; matrix_format has the equation.
/// How codes, scales and zero points lie is told by the two types that hold them.
struct matrix_parts {
  matrix_format format;
  std::string method;      ///< name in the method table, for the record
  shared_bytes codes;      ///< of format.bits
  shared_bytes scale;      ///< of format.aux, or codes of scale_bits
  shared_bytes zero;       ///< of format.aux, or codes of zero_bits; empty unless format.has_zero
  shared_bytes col_scale;  ///< t [row_tiles x K] of format.col_scale_type; empty unless format.has_col_scale
  shared_bytes scale_base; ///< of format.aux; empty unless format.scale_bits
  shared_bytes zero_base;  ///< of format.aux; empty unless format.has_zero and format.zero_bits
  shared_bytes levels;     ///< [2^bits] of f32; empty unless the grid is grid::custom
};

/// What an engine keeps of a weight, and what files hold: the canonical layout.
///   codes                   N rows of packed_layout<bits>::row_bytes(K)
///   scale, zero             [N x G] of format.aux, or one stream of N G codes
///   scale_base, zero_base   [N x super_groups]
struct packed_matrix : matrix_parts {
  /// Packed codes of row i.
  [[nodiscard]] std::span<const byte> code_row(std::size_t i) const {
    const std::size_t bytes = codes.size() / format.rows;
    return codes.span().subspan(i * bytes, bytes);
  }
  [[nodiscard]] std::size_t size_bytes() const { return packed_bytes(format).total(); }
};

namespace detail {

/// Whether every part has the size that it should have.
[[nodiscard]] inline result<void> check_sizes(const matrix_parts& p, const packed_sizes& sizes) {
  const auto part = [](std::string_view name, std::size_t is, std::size_t expected) -> result<void> {
    if (is == expected) return {};
    return make_error(errc::malformed, name, " has ", is, " bytes, expected ", expected);
  };
  if (result<void> ok = part("codes", p.codes.size(), sizes.codes); !ok) return ok;
  if (result<void> ok = part("scale", p.scale.size(), sizes.scale); !ok) return ok;
  if (result<void> ok = part("zero", p.zero.size(), sizes.zero); !ok) return ok;
  if (result<void> ok = part("scale_base", p.scale_base.size(), sizes.scale_base); !ok) return ok;
  if (result<void> ok = part("zero_base", p.zero_base.size(), sizes.zero_base); !ok) return ok;
  if (result<void> ok = part("levels", p.levels.size(), sizes.levels); !ok) return ok;
  return part("t", p.col_scale.size(), sizes.col_scale);
}

} // namespace detail

/// Whether every part of a packed matrix has the size that its format says.
[[nodiscard]] inline result<void> check_packed(const packed_matrix& p) {
  if (result<void> ok = check_format(p.format); !ok) return ok;
  return detail::check_sizes(p, packed_bytes(p.format));
}

} // namespace sinq
