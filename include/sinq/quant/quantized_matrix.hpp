#pragma once

#include "../core/aligned_buffer.hpp"
#include "../core/levels.hpp"
#include "../core/matrix_view.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace sinq {

/// A quantized weight as a quantizer leaves it: one byte a code, auxiliaries in f32. `pack` makes what an engine keeps.
/// V[i][j] = scale[i][g] * (level[code[i][j]] - zero[i][g]) * t[i / tile_rows][j],  g = j / group_size;  W = V R, see
/// matrix_format. Where the format quantizes scales or zero points, scale and zero hold the values that their codes
/// stand for (refine puts them there).
struct quantized_matrix {
  matrix_format format;
  std::string method;                 ///< name in the method table, for the record
  aligned_buffer<std::uint8_t> codes; ///< [N x K]; empty where refine has yet to choose them
  std::vector<float> scale;           ///< [N x G]
  std::vector<float> zero;            ///< [N x G]; empty unless format.has_zero
  std::vector<float> col_scale;       ///< t [row_tiles x K]; empty unless format.has_col_scale
  std::vector<float> scale_base;      ///< [N x super_groups]; empty unless format.scale_bits
  std::vector<float> zero_base;       ///< [N x super_groups]; empty unless format.has_zero and format.zero_bits
  std::vector<float> custom_levels;   ///< [2^bits]; empty unless the grid is grid::custom

  [[nodiscard]] matrix_view<const std::uint8_t> code_matrix() const { return {codes.data(), format.rows, format.cols}; }
  [[nodiscard]] matrix_view<const float> scale_matrix() const { return {scale.data(), format.rows, format.groups()}; }
  /// Zero point of group g of row i.
  [[nodiscard]] float zero_at(std::size_t i, std::size_t g) const {
    return format.has_zero ? zero[i * format.groups() + g] : format.symmetric_zero();
  }
  /// t of column j in row i.
  [[nodiscard]] float col_scale_at(std::size_t i, std::size_t j) const {
    return format.has_col_scale ? col_scale[format.row_tile(i) * format.cols + j] : 1.0f;
  }
  /// What the codes stand for.
  [[nodiscard]] std::span<const float> levels() const { return sinq::levels(format, custom_levels); }

  /// A matrix of that format with room for t, if the format has one: its codes, scales and zero points are elsewhere.
  [[nodiscard]] static quantized_matrix outline(const matrix_format& format, std::string method) {
    quantized_matrix q;
    q.format = format;
    q.method = std::move(method);
    if (format.has_col_scale) q.col_scale.resize(format.row_tiles() * format.cols);
    return q;
  }

  /// A matrix of that format with room for everything that the format says is there.
  [[nodiscard]] static quantized_matrix allocate(const matrix_format& format, std::string method) {
    quantized_matrix q = outline(format, std::move(method));
    q.codes = {format.rows * format.cols, aligned_buffer<std::uint8_t>::uninitialized};
    q.scale.resize(format.rows * format.groups());
    if (format.has_zero) q.zero.resize(q.scale.size());
    if (format.scale_bits != 0) q.scale_base.resize(format.rows * format.super_groups());
    if (format.has_zero && format.zero_bits != 0) q.zero_base.resize(format.rows * format.super_groups());
    if (format.grid == grid::custom) q.custom_levels.resize(static_cast<std::size_t>(max_code(format.bits)) + 1);
    return q;
  }
};

} // namespace sinq
