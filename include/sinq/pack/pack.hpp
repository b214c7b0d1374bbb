#pragma once

#include "../core/convert.hpp"
#include "../core/parallel.hpp"
#include "auxiliaries.hpp"
#include "layout.hpp"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

namespace sinq {

namespace detail {

/// Rows that one task packs or unpacks.
inline constexpr std::size_t rows_per_task = 64;

/// How far a zero point may move when it is stored, in steps.
inline constexpr float zero_tolerance = 0x1p-4f;

/// The t that will be stored, with the power of two of each column of groups in it; its type is set in the format.
[[nodiscard]] inline std::vector<float> shifted_col_scale(const quantized_matrix& q, std::span<const int> shifts,
                                                          matrix_format& format) {
  const bool shifted = std::any_of(shifts.begin(), shifts.end(), [](int k) { return k != 0; });
  if (!q.format.has_col_scale && !shifted) return {};
  std::vector<float> t(format.cols);
  const storage_range limits = range_of(storage(format.aux));
  bool fits = true;
  for (std::size_t j = 0; j < format.cols; ++j) {
    t[j] = std::ldexp(q.col_scale_at(j), shifts[j / format.group_size]);
    fits &= t[j] == 0 || (std::fabs(t[j]) >= limits.least && std::fabs(t[j]) <= limits.most);
  }
  format.has_col_scale = true;
  format.col_scale_type = fits ? storage(format.aux) : dtype::f32;
  return t;
}

/// Codes, scales and zero points of one row as they will be stored, before conversion.
struct packed_row {
  std::vector<std::uint8_t> codes;
  std::vector<float> scale;
  std::vector<float> zero;
};

/// Shifts a row's scales and coarsens groups whose scale would fall below the storage range (2^-29 of the largest).
inline void fit_row(const quantized_matrix& q, std::size_t i, std::span<const int> shifts, packed_row& row) {
  const matrix_format& f = q.format;
  const auto codes = q.code_matrix().row(i);
  row.codes.assign(codes.begin(), codes.end());
  row.scale.resize(f.groups());
  row.zero.resize(f.groups());
  const storage_range limits = range_of(storage(f.aux));
  for (std::size_t g = 0; g < f.groups(); ++g) {
    const float scale = std::ldexp(q.scale[i * f.groups() + g], -shifts[g]);
    row.scale[g] = std::clamp(scale, -limits.most, limits.most);
    row.zero[g] = q.zero_at(i, g);
    if (scale == 0 || std::fabs(scale) >= limits.least || is_zero_group(q, i, g)) continue;
    row.scale[g] = std::copysign(limits.least, scale);
    row.zero[g] =
        coarsen(std::span{row.codes}.subspan(g * f.group_size, f.group_cols(g)), row.zero[g], scale / row.scale[g], f);
  }
}

[[nodiscard]] inline result<void> check_stored_zero(const packed_row& row, std::size_t i, aux_dtype aux,
                                                    std::span<const byte> stored) {
  for (std::size_t g = 0; g < row.zero.size(); ++g) {
    float back = 0;
    load_floats(stored.data() + g * size_bytes(storage(aux)), storage(aux), {&back, 1});
    if (!(std::fabs(back - row.zero[g]) <= zero_tolerance))
      return make_error(errc::not_representable, "pack: zero point ", row.zero[g], " of row ", i, ", group ", g,
                        " does not fit ", to_string(storage(aux)), "; use f32 auxiliaries or a fitting group");
  }
  return {};
}

} // namespace detail

/// Packs codes to their width and auxiliaries to their storage type.
/// Scales that leave the range of f16 are moved into t by a power of two, one for each column of groups; a group whose
/// scale would still fall below the smallest normal number, 2^-29 of the largest, moves to that step. Nothing becomes
/// infinite. A zero point may lie outside the codes and may be fractional, and is stored as it is.
/// @errors  errc::invalid_argument (sizes, codes), errc::non_finite, errc::not_representable (a zero point that its
/// type
///          cannot hold to 1/16 of a step; those of our quantizers always fit)
[[nodiscard]] inline result<packed_matrix> pack(const quantized_matrix& q, const run_options& run = {}) {
  if (result<void> ok = check_format(q.format); !ok) return ok.error();
  if (result<void> ok = detail::check_quantized(q); !ok) return ok.error();
  packed_matrix p{q.format, code_layout::canonical, q.method, {}, {}, {}, {}};
  const std::size_t groups = q.format.groups();
  std::vector<int> shifts(groups);
  for (std::size_t g = 0; g < groups; ++g)
    shifts[g] = detail::scale_shift(detail::scale_range(q, g), detail::range_of(storage(q.format.aux)));
  const std::vector<float> t = detail::shifted_col_scale(q, shifts, p.format);

  const packed_sizes sizes = packed_bytes(p.format);
  aligned_buffer<byte> codes{sizes.codes, aligned_buffer<byte>::uninitialized};
  aligned_buffer<byte> scale{sizes.scale, aligned_buffer<byte>::uninitialized};
  aligned_buffer<byte> zero{sizes.zero, aligned_buffer<byte>::uninitialized};
  aligned_buffer<byte> col_scale{sizes.col_scale, aligned_buffer<byte>::uninitialized};
  store_floats(t, p.format.col_scale_type, col_scale.data());

  const dtype aux = storage(q.format.aux);
  const std::size_t aux_row = groups * size_bytes(aux);
  const std::size_t code_row = sizes.codes / q.format.rows;
  const auto pack_rows = [&](std::size_t begin, std::size_t end) -> result<void> {
    detail::packed_row row;
    for (std::size_t i = begin; i < end; ++i) {
      detail::fit_row(q, i, shifts, row);
      with_layout(q.format.bits,
                  [&](auto layout) { layout.pack_row(row.codes, codes.span().subspan(i * code_row, code_row)); });
      store_floats(row.scale, aux, scale.data() + i * aux_row);
      if (!q.format.has_zero) continue;
      store_floats(row.zero, aux, zero.data() + i * aux_row);
      result<void> fits = detail::check_stored_zero(row, i, q.format.aux, zero.span().subspan(i * aux_row, aux_row));
      if (!fits) return fits;
    }
    return {};
  };
  if (result<void> ok = parallel_for(run.on(), q.format.rows, detail::rows_per_task, pack_rows, run.progress); !ok)
    return ok.error();
  p.codes = shared_bytes{std::move(codes)};
  p.scale = shared_bytes{std::move(scale)};
  p.zero = shared_bytes{std::move(zero)};
  p.col_scale = shared_bytes{std::move(col_scale)};
  return p;
}

/// The inverse of `pack`: one byte a code, auxiliaries as stored, in f32. pack(unpack(p)) is p again.
/// @pre check_packed(p) (as every reader and `pack` guarantee)
[[nodiscard]] inline quantized_matrix unpack(const packed_matrix& p) {
  quantized_matrix q = quantized_matrix::allocate(p.format, p.method);
  with_layout(p.format.bits, [&](auto layout) {
    for (std::size_t i = 0; i < p.format.rows; ++i)
      layout.unpack_row(p.code_row(i), q.codes.span().subspan(i * p.format.cols, p.format.cols));
  });
  load_floats(p.scale.data(), storage(p.format.aux), q.scale);
  load_floats(p.zero.data(), storage(p.format.aux), q.zero);
  load_floats(p.col_scale.data(), p.format.col_scale_type, q.col_scale);
  return q;
}

/// Writes the weights of rows [row_begin, row_begin + out.rows()) that a packed matrix stands for.
/// W[i][j] = (s (q - z)) t in f32, rounded after each operation; no NaN or infinity unless a product overflows f32.
/// @param out  [rows x K]
inline void dequantize_rows(const packed_matrix& p, std::size_t row_begin, matrix_view<float> out) {
  SINQ_ASSERT(row_begin + out.rows() <= p.format.rows && out.cols() == p.format.cols);
  const matrix_format& f = p.format;
  const std::size_t groups = f.groups();
  const std::size_t aux_row = groups * size_bytes(storage(f.aux));
  std::vector<std::uint8_t> codes(f.cols);
  std::vector<float> scale(groups);
  std::vector<float> zero(groups, f.symmetric_zero());
  std::vector<float> t(f.cols, 1.0f);
  if (f.has_col_scale) load_floats(p.col_scale.data(), f.col_scale_type, t);
  for (std::size_t i = 0; i < out.rows(); ++i) {
    const std::size_t row = row_begin + i;
    with_layout(f.bits, [&](auto layout) { layout.unpack_row(p.code_row(row), codes); });
    load_floats(p.scale.data() + row * aux_row, storage(f.aux), scale);
    if (f.has_zero) load_floats(p.zero.data() + row * aux_row, storage(f.aux), zero);
    float* const to = out.data() + i * out.stride();
    for (std::size_t g = 0; g < groups; ++g) {
      const std::size_t begin = g * f.group_size;
      for (std::size_t j = begin; j < begin + f.group_cols(g); ++j)
        to[j] = (scale[g] * (static_cast<float>(codes[j]) - zero[g])) * t[j];
    }
  }
}

/// The weights that a packed matrix stands for, [N x K] row-major; see dequantize_rows.
inline void dequantize(const packed_matrix& p, matrix_view<float> out, const run_options& run = {}) {
  SINQ_ASSERT(out.rows() == p.format.rows);
  const auto rows = [&](std::size_t begin, std::size_t end) -> result<void> {
    dequantize_rows(p, begin, out.block(begin, 0, end - begin, out.cols()));
    return {};
  };
  const result<void> done = parallel_for(run.on(), p.format.rows, detail::rows_per_task, rows);
  SINQ_ASSERT(done.has_value());
  static_cast<void>(done);
}
[[nodiscard]] inline std::vector<float> dequantize(const packed_matrix& p, const run_options& run = {}) {
  std::vector<float> out(p.format.rows * p.format.cols);
  dequantize(p, {out.data(), p.format.rows, p.format.cols}, run);
  return out;
}

} // namespace sinq
