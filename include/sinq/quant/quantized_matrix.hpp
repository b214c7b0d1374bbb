#pragma once

#include "../core/aligned_buffer.hpp"
#include "../core/format.hpp"
#include "../core/matrix_view.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace sinq {

/// A quantized weight as a quantizer leaves it: one byte a code, auxiliaries in f32. `pack` makes what an engine keeps.
/// W[i][j] = scale[i][g] * (level[code[i][j]] - zero[i][g]) * t[j],  g = j / group_size
struct quantized_matrix {
  matrix_format format;
  std::string method;                 ///< name in the method table, for the record
  aligned_buffer<std::uint8_t> codes; ///< [N x K]
  std::vector<float> scale;           ///< [N x G]
  std::vector<float> zero;            ///< [N x G]; empty unless format.has_zero
  std::vector<float> col_scale;       ///< t [K]; empty unless format.has_col_scale

  [[nodiscard]] matrix_view<const std::uint8_t> code_matrix() const { return {codes.data(), format.rows, format.cols}; }
  [[nodiscard]] matrix_view<const float> scale_matrix() const { return {scale.data(), format.rows, format.groups()}; }
  /// Zero point of group g of row i.
  [[nodiscard]] float zero_at(std::size_t i, std::size_t g) const {
    return format.has_zero ? zero[i * format.groups() + g] : format.symmetric_zero();
  }
  /// t of column j.
  [[nodiscard]] float col_scale_at(std::size_t j) const { return format.has_col_scale ? col_scale[j] : 1.0f; }

  /// A matrix of that format with room for everything that the format says is there.
  [[nodiscard]] static quantized_matrix allocate(const matrix_format& format, std::string method) {
    quantized_matrix q{format, std::move(method), {}, {}, {}, {}};
    q.codes = {format.rows * format.cols, aligned_buffer<std::uint8_t>::uninitialized};
    q.scale.resize(format.rows * format.groups());
    if (format.has_zero) q.zero.resize(q.scale.size());
    if (format.has_col_scale) q.col_scale.resize(format.cols);
    return q;
  }
};

} // namespace sinq
