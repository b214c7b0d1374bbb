#pragma once

#include "../core/parallel.hpp"
#include "layout.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

namespace sinq {

/// Rows of a panel: a vector of 16 lanes, one for each row, goes along the columns.
inline constexpr std::size_t panel_rows = 16;
/// Columns of a block: the codes of a panel's block are b pairs of cache lines.
inline constexpr std::size_t block_cols = 64;
/// Bytes of one vector of codes: four bytes for each row.
inline constexpr std::size_t code_vector_bytes = 64;

/// Some bits of every code of a block: digit = (code >> shift) & (2^bits - 1).
struct code_plane {
  int bits = 0;                 ///< w: 1, 2, 4 or 8
  int shift = 0;                ///< where the digit stands in the code
  std::size_t offset_bytes = 0; ///< from the start of the block
};

/// The planes of a width: 2, 4 and 8 bits are one, 3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2. Unused planes have 0 bits.
///
///   a plane of w bits is 2 w vectors of 64 bytes; vector v holds columns [32 / w * v, 32 / w * (v + 1)) of 16 rows
///   digit of row r, column 32 / w * v + 4 s + b:   bits [s w, (s + 1) w) of byte 4 r + b
///
///   4 bits, one vector:   byte 4 r + b:  | column 4 + b | column b |      b = 0 .. 3, high bits on the left
///   2 bits, one vector:   byte 4 r + b:  | column 12 + b | column 8 + b | column 4 + b | column b |
///   3 bits, one block:    4 vectors of the low two bits of 64 columns, then 2 of the high bit
///
/// The four bytes of a row are four columns that follow each other, as the dot products of bytes of VNNI, AMX and
/// NEON take them.
[[nodiscard]] constexpr std::array<code_plane, 2> code_planes(int bits) {
  switch (bits) {
  case 3: return {code_plane{2, 0, 0}, code_plane{1, 2, 4 * code_vector_bytes}};
  case 5: return {code_plane{4, 0, 0}, code_plane{1, 4, 8 * code_vector_bytes}};
  case 6: return {code_plane{4, 0, 0}, code_plane{2, 4, 8 * code_vector_bytes}};
  default: return {code_plane{bits, 0, 0}, code_plane{}};
  }
}

/// Bytes of the codes of one block of one panel.
[[nodiscard]] constexpr std::size_t block_bytes(int bits) {
  return panel_rows * block_cols / 8 * static_cast<std::size_t>(bits);
}

/// How the panels of a format lie: each tile of rows starts with a new one.
struct panel_shape {
  explicit panel_shape(const matrix_format& f)
      : tile_height{f.tile_height()}, panels_per_tile{(tile_height + panel_rows - 1) / panel_rows},
        panels{f.row_tiles() * panels_per_tile}, blocks{(f.cols + block_cols - 1) / block_cols}, rows{f.rows} {}

  /// The first row of a panel.
  [[nodiscard]] std::size_t row_begin(std::size_t panel) const {
    return panel / panels_per_tile * tile_height + panel % panels_per_tile * panel_rows;
  }
  /// Its rows, 0 to 16; lanes beyond them hold zeros.
  [[nodiscard]] std::size_t row_count(std::size_t panel) const {
    const std::size_t begin = row_begin(panel);
    const std::size_t end = std::min(rows, (panel / panels_per_tile + 1) * tile_height);
    return begin >= end ? 0 : std::min(panel_rows, end - begin);
  }

  std::size_t tile_height, panels_per_tile, panels, blocks, rows;
};

/// Bytes of each part of a panel_matrix of that format; codes of scales and zero points take a byte each.
[[nodiscard]] inline packed_sizes panel_bytes(const matrix_format& f) {
  const panel_shape shape{f};
  const std::size_t lanes = shape.panels * panel_rows;
  const std::size_t aux = size_bytes(storage(f.aux));
  packed_sizes sizes = packed_bytes(f);
  sizes.codes = shape.panels * shape.blocks * block_bytes(f.bits);
  sizes.scale = lanes * f.groups() * (f.scale_bits == 0 ? aux : 1);
  sizes.scale_base = f.scale_bits == 0 ? 0 : lanes * f.super_groups() * aux;
  sizes.zero = !f.has_zero ? 0 : lanes * f.groups() * (f.zero_bits == 0 ? aux : 1);
  sizes.zero_base = !f.has_zero || f.zero_bits == 0 ? 0 : lanes * f.super_groups() * aux;
  return sizes;
}

/// A weight as `matmul` wants it: 16 rows side by side.
///   codes                   [panels x blocks] of block_bytes(bits); see code_planes
///   scale, zero             [panels x G x 16] of format.aux, or of bytes, codes of scale_bits and zero_bits
///   scale_base, zero_base   [panels x super_groups x 16]
struct panel_matrix : matrix_parts {
  [[nodiscard]] std::size_t size_bytes() const { return panel_bytes(format).total(); }
};

/// Whether every part of a panel_matrix has the size that its format says.
/// @errors  those of check_format; errc::invalid_argument (rows and columns that are filled up to more than 2^56
///          elements), errc::malformed (a part of another size)
[[nodiscard]] inline result<void> check_panels(const panel_matrix& w) {
  if (result<void> ok = check_format(w.format); !ok) return ok;
  const panel_shape shape{w.format};
  constexpr std::size_t most_blocks = (std::size_t{1} << 56) / (panel_rows * block_cols);
  if (shape.blocks > most_blocks / shape.panels)
    return make_error(errc::invalid_argument, "the matrix fills ", shape.panels, " panels of ", shape.blocks,
                      " blocks, more than 2^56 elements");
  return detail::check_sizes(w, panel_bytes(w.format));
}

namespace detail {

/// Bytes from one row of codes to the next while they are moved to or from a panel: an odd number of cache lines, so
/// that the lines of 16 rows do not meet in one set of the cache.
[[nodiscard]] constexpr std::size_t code_stride(std::size_t blocks) {
  return (blocks | 1) * block_cols;
}

/// Calls f(width, shift, vector, column) for each vector of codes of a panel: the width of its digits, a constant;
/// where they stand in the code; its offset in bytes; the column that its first digits belong to.
template <class F>
void for_each_code_vector(int bits, std::size_t blocks, F&& f) {
  for (std::size_t block = 0; block < blocks; ++block)
    for (const code_plane& plane : code_planes(bits)) {
      const auto vectors = [&](auto width) {
        for (std::size_t v = 0; v < 2 * width; ++v)
          f(width, plane.shift, block * block_bytes(bits) + plane.offset_bytes + v * code_vector_bytes,
            block * block_cols + v * (32 / width));
      };
      switch (plane.bits) {
      case 1: vectors(std::integral_constant<std::size_t, 1>{}); break;
      case 2: vectors(std::integral_constant<std::size_t, 2>{}); break;
      case 4: vectors(std::integral_constant<std::size_t, 4>{}); break;
      case 8: vectors(std::integral_constant<std::size_t, 8>{}); break;
      default: break;
      }
    }
}

/// Four digits of a width, one in the low bits of each byte.
template <std::size_t Width>
inline constexpr std::uint32_t digit_mask = ((1u << Width) - 1) * 0x01010101u;

/// Writes the codes of 16 rows.
/// @param codes  [16 x code_stride(blocks)], zeros beyond the matrix
inline void write_panel_codes(int bits, std::size_t blocks, std::span<const std::uint8_t> codes, std::span<byte> to) {
  const std::size_t stride = code_stride(blocks);
  SINQ_ASSERT(codes.size() == panel_rows * stride && to.size() == blocks * block_bytes(bits));
  for_each_code_vector(bits, blocks, [&](auto width, int shift, std::size_t vector, std::size_t column) {
    for (std::size_t r = 0; r < panel_rows; ++r) {
      const std::uint8_t* const from = codes.data() + r * stride + column;
      std::uint32_t four = 0;
      for (std::size_t s = 0; s < 8 / width; ++s) {
        std::uint32_t digits;
        std::memcpy(&digits, from + 4 * s, sizeof digits);
        four |= ((digits >> shift) & digit_mask<width>) << (s * width);
      }
      std::memcpy(to.data() + vector + 4 * r, &four, sizeof four);
    }
  });
}

/// Spreads the auxiliaries of one row over the lane of its panel: elements of `size` bytes, 16 lanes apart.
inline void spread_lane(const byte* from, std::size_t count, std::size_t size, std::size_t lane, byte* to) {
  for (std::size_t g = 0; g < count; ++g) std::memcpy(to + (g * panel_rows + lane) * size, from + g * size, size);
}

/// Memory for what differs between panels and a packed matrix.
struct layout_parts {
  std::span<byte> codes, scale, zero, scale_base, zero_base;
};

/// Writes the panels of a packed matrix: the scratch of one task.
class panel_writer {
public:
  explicit panel_writer(const packed_matrix& p)
      : p_{p}, shape_{p.format}, codes_(panel_rows * code_stride(shape_.blocks)) {}

  /// Writes a panel. Lanes without a row become zeros.
  void operator()(std::size_t panel, const layout_parts& to) {
    const matrix_format& f = p_.format;
    const std::size_t count = shape_.row_count(panel);
    const std::size_t stride = code_stride(shape_.blocks);
    std::fill(codes_.begin(), codes_.end(), std::uint8_t{0});
    for (std::span<byte> part : {to.scale, to.zero, to.scale_base, to.zero_base})
      std::fill(part.begin(), part.end(), byte{0});
    for (std::size_t lane = 0; lane < count; ++lane) {
      const std::size_t i = shape_.row_begin(panel) + lane;
      with_layout(f.bits, [&](auto layout) {
        layout.unpack_row(p_.code_row(i), std::span{codes_}.subspan(lane * stride, f.cols));
      });
      spread(p_.scale, f.scale_bits, f.groups(), i, lane, to.scale);
      if (f.has_zero) spread(p_.zero, f.zero_bits, f.groups(), i, lane, to.zero);
      if (!to.scale_base.empty()) spread(p_.scale_base, 0, f.super_groups(), i, lane, to.scale_base);
      if (!to.zero_base.empty()) spread(p_.zero_base, 0, f.super_groups(), i, lane, to.zero_base);
    }
    write_panel_codes(f.bits, shape_.blocks, codes_, to.codes);
  }

private:
  void spread(const shared_bytes& from, int bits, std::size_t count, std::size_t i, std::size_t lane,
              std::span<byte> to) const {
    const std::size_t size = size_bytes(storage(p_.format.aux));
    if (bits == 0) return spread_lane(from.data() + i * count * size, count, size, lane, to.data());
    for (std::size_t g = 0; g < count; ++g)
      with_layout(bits, [&](auto layout) {
        to[g * panel_rows + lane] = static_cast<byte>(layout.code(from.span(), i * count + g));
      });
  }

  const packed_matrix& p_;
  panel_shape shape_;
  std::vector<std::uint8_t> codes_;
};

/// Panel n of parts that hold `panels` of them.
[[nodiscard]] inline layout_parts part_of_panels(const layout_parts& all, std::size_t n, std::size_t panels) {
  const auto cut = [&](std::span<byte> part) {
    const std::size_t bytes = part.size() / panels;
    return part.subspan(n * bytes, bytes);
  };
  return {cut(all.codes), cut(all.scale), cut(all.zero), cut(all.scale_base), cut(all.zero_base)};
}

} // namespace detail

/// Arranges a packed matrix in panels, for `matmul`. Takes about the time of a few multiplications by one token.
/// @errors  those of check_packed
[[nodiscard]] inline result<panel_matrix> to_panels(const packed_matrix& p, const run_options& run = {}) {
  if (result<void> ok = check_packed(p); !ok) return ok.error();
  const packed_sizes sizes = panel_bytes(p.format);
  const auto make = [](std::size_t bytes) { return aligned_buffer<byte>{bytes, aligned_buffer<byte>::uninitialized}; };
  aligned_buffer<byte> codes = make(sizes.codes), scale = make(sizes.scale), zero = make(sizes.zero),
                       scale_base = make(sizes.scale_base), zero_base = make(sizes.zero_base);
  const detail::layout_parts all{codes.span(), scale.span(), zero.span(), scale_base.span(), zero_base.span()};
  const std::size_t panels = panel_shape{p.format}.panels;
  const auto write = [&](std::size_t begin, std::size_t end) -> result<void> {
    detail::panel_writer writer{p};
    for (std::size_t n = begin; n < end; ++n) writer(n, detail::part_of_panels(all, n, panels));
    return {};
  };
  if (result<void> done = parallel_for(run.on(), panels, 4, write, run.progress); !done) return done.error();
  panel_matrix w;
  w.format = p.format;
  w.method = p.method;
  w.codes = shared_bytes{std::move(codes)};
  w.scale = shared_bytes{std::move(scale)};
  w.zero = shared_bytes{std::move(zero)};
  w.scale_base = shared_bytes{std::move(scale_base)};
  w.zero_base = shared_bytes{std::move(zero_base)};
  w.col_scale = p.col_scale;
  w.levels = p.levels;
  return w;
}

} // namespace sinq
