#pragma once

#include "../core/convert.hpp"
#include "../core/parallel.hpp"
#include "aux_codes.hpp"
#include "auxiliaries.hpp"
#include "dequantize.hpp"
#include "layout.hpp"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

namespace sinq {

namespace detail {

/// How far a zero point may move when it is stored, in steps.
inline constexpr float zero_tolerance = 0x1p-4f;

/// Powers of two that move from scales into t, one for each column of groups in each row tile; all 0 where scales are
/// quantized, whose bases belong to several columns of groups.
[[nodiscard]] inline std::vector<int> scale_shifts(const quantized_matrix& q) {
  const std::size_t groups = q.format.groups();
  std::vector<int> shifts(q.format.row_tiles() * groups);
  if (q.format.scale_bits != 0) return shifts;
  for (std::size_t n = 0; n < shifts.size(); ++n)
    shifts[n] = scale_shift(scale_range(q, n / groups, n % groups), range_of(storage(q.format.aux)));
  return shifts;
}

/// The t that will be stored, with the power of two of each column of groups in it; its type is set in the format.
[[nodiscard]] inline std::vector<float> shifted_col_scale(const quantized_matrix& q, std::span<const int> shifts,
                                                          matrix_format& format) {
  const bool shifted = std::any_of(shifts.begin(), shifts.end(), [](int k) { return k != 0; });
  if (!q.format.has_col_scale && !shifted) return {};
  std::vector<float> t(format.row_tiles() * format.cols);
  const dtype type = q.format.has_col_scale ? q.format.col_scale_type : storage(format.aux);
  for (std::size_t n = 0; n < t.size(); ++n) {
    const std::size_t tile = n / format.cols;
    const std::size_t j = n % format.cols;
    t[n] = std::ldexp(q.format.has_col_scale ? q.col_scale[n] : 1.0f,
                      shifts[tile * format.groups() + j / format.group_size]);
  }
  format.has_col_scale = true;
  format.col_scale_type = fits(t, type) ? type : dtype::f32;
  return t;
}

/// Codes, scales and zero points of one row as they will be stored, before conversion.
struct packed_row {
  std::span<const std::uint8_t> codes; ///< of the quantized matrix, or those below
  std::vector<std::uint8_t> coarsened;
  std::vector<float> scale;
  std::vector<float> zero;
  std::vector<float> stored; ///< scratch
};

/// Shifts a row's scales and coarsens groups whose scale would fall below the storage range (2^-29 of the largest).
inline void fit_row(const quantized_matrix& q, std::size_t i, std::span<const int> shifts, packed_row& row) {
  const matrix_format& f = q.format;
  row.codes = q.code_matrix().row(i);
  row.scale.resize(f.groups());
  row.zero.resize(f.groups());
  const storage_range limits = range_of(storage(f.aux));
  for (std::size_t g = 0; g < f.groups(); ++g) {
    const int shift = shifts[f.row_tile(i) * f.groups() + g];
    const float as_is = q.scale[i * f.groups() + g];
    const float scale = shift == 0 ? as_is : std::ldexp(as_is, -shift);
    if (f.scale_bits != 0) {
      row.scale[g] = scale;
      row.zero[g] = q.zero_at(i, g);
      continue;
    }
    row.scale[g] = std::clamp(scale, -limits.most, limits.most);
    row.zero[g] = q.zero_at(i, g);
    if (scale == 0 || std::fabs(scale) >= limits.least || is_zero_group(q, i, g)) continue;
    row.scale[g] = std::copysign(limits.least, scale);
    if (row.codes.data() != row.coarsened.data()) row.coarsened.assign(row.codes.begin(), row.codes.end());
    row.codes = row.coarsened;
    row.zero[g] = coarsen(std::span{row.coarsened}.subspan(g * f.group_size, f.group_cols(g)), row.zero[g],
                          scale / row.scale[g], f, q.levels());
  }
}

[[nodiscard]] inline result<void> check_stored_zero(packed_row& row, std::size_t i, aux_dtype aux,
                                                    std::span<const byte> stored) {
  row.stored.resize(row.zero.size());
  load_floats(stored.data(), storage(aux), row.stored);
  for (std::size_t g = 0; g < row.zero.size(); ++g)
    if (!(std::fabs(row.stored[g] - row.zero[g]) <= zero_tolerance))
      return make_error(errc::not_representable, "pack: zero point ", row.zero[g], " of row ", i, ", group ", g,
                        " does not fit ", to_string(storage(aux)), "; use f32 auxiliaries or a fitting group");
  return {};
}

/// An 8-bit t is coarse, so it has to be settled before scales and codes are fitted to it.
[[nodiscard]] inline result<void> check_stored_col_scale(std::span<const float> t, const matrix_format& format) {
  if (!format.has_col_scale || format.col_scale_type != dtype::f8_e4m3) return {};
  for (std::size_t n = 0; n < t.size(); ++n)
    if (as_stored(t[n], dtype::f8_e4m3) != t[n])
      return make_error(errc::not_representable, "pack: t of column ", n % format.cols, " is ", t[n],
                        ", which is no F8_E4M3 number; round t before scales and codes are fitted");
  return {};
}

/// The parts of a packed matrix while they are made.
struct packed_parts {
  explicit packed_parts(const packed_sizes& sizes)
      : codes{sizes.codes, aligned_buffer<byte>::uninitialized},
        scale{sizes.scale, aligned_buffer<byte>::uninitialized}, zero{sizes.zero, aligned_buffer<byte>::uninitialized} {
  }

  aligned_buffer<byte> codes, scale, zero;
};

/// Floats in a storage type.
[[nodiscard]] inline shared_bytes stored(std::span<const float> values, dtype type) {
  aligned_buffer<byte> bytes{values.size() * size_bytes(type), aligned_buffer<byte>::uninitialized};
  store_floats(values, type, bytes.data());
  return shared_bytes{std::move(bytes)};
}

/// A packed matrix of parts that are there and what is still in floats.
/// @param format  that of q, but for what was found about t
/// @param t       that will be stored
[[nodiscard]] inline packed_matrix assemble(const matrix_format& format, const quantized_matrix& q, packed_parts parts,
                                            std::span<const float> t) {
  const dtype aux = storage(format.aux);
  packed_matrix p;
  p.format = format;
  p.method = q.method;
  p.codes = shared_bytes{std::move(parts.codes)};
  p.scale = shared_bytes{std::move(parts.scale)};
  p.zero = shared_bytes{std::move(parts.zero)};
  p.col_scale = stored(t, format.col_scale_type);
  p.scale_base = stored(q.scale_base, aux);
  p.zero_base = stored(q.zero_base, aux);
  p.levels = stored(q.custom_levels, dtype::f32);
  return p;
}

} // namespace detail

/// Packs codes to their width and auxiliaries to their storage type.
/// Scales that leave the range of f16 are moved into t by a power of two, one for each column of groups; a group whose
/// scale would still fall below the smallest normal number, 2^-29 of the largest, moves to that step. Nothing becomes
/// infinite. A zero point may lie outside the codes and may be fractional, and is stored as it is.
/// @errors  errc::invalid_argument (sizes, codes), errc::non_finite, errc::not_representable (a zero point that its
/// type
///          cannot hold to 1/16 of a step, or a quantized scale or zero point that is none of its super-group's; those
///          of our quantizers always fit)
[[nodiscard]] inline result<packed_matrix> pack(const quantized_matrix& q, const run_options& run = {}) {
  if (result<void> ok = check_format(q.format); !ok) return ok.error();
  if (result<void> ok = detail::check_quantized(q); !ok) return ok.error();
  const std::vector<int> shifts = detail::scale_shifts(q);
  matrix_format format = q.format;
  const std::vector<float> t = detail::shifted_col_scale(q, shifts, format);
  if (result<void> ok = detail::check_stored_col_scale(t, format); !ok) return ok.error();
  const packed_sizes sizes = packed_bytes(format);
  detail::packed_parts parts{sizes};

  const dtype aux = storage(q.format.aux);
  const std::size_t aux_row = q.format.groups() * size_bytes(aux);
  const std::size_t code_row = sizes.codes / q.format.rows;
  const auto pack_rows = [&](std::size_t begin, std::size_t end) -> result<void> {
    detail::packed_row row;
    for (std::size_t i = begin; i < end; ++i) {
      detail::fit_row(q, i, shifts, row);
      with_layout(q.format.bits,
                  [&](auto layout) { layout.pack_row(row.codes, parts.codes.span().subspan(i * code_row, code_row)); });
      if (q.format.scale_bits == 0) store_floats(row.scale, aux, parts.scale.data() + i * aux_row);
      if (!q.format.has_zero || q.format.zero_bits != 0) continue;
      store_floats(row.zero, aux, parts.zero.data() + i * aux_row);
      result<void> fits =
          detail::check_stored_zero(row, i, q.format.aux, parts.zero.span().subspan(i * aux_row, aux_row));
      if (!fits) return fits;
    }
    return {};
  };
  if (result<void> ok = parallel_for(run.on(), q.format.rows, detail::rows_per_task, pack_rows, run.progress); !ok)
    return ok.error();
  if (q.format.scale_bits != 0)
    if (result<void> ok = detail::pack_scale_codes(q, parts.scale.span()); !ok) return ok.error();
  if (q.format.has_zero && q.format.zero_bits != 0)
    if (result<void> ok = detail::pack_zero_codes(q, parts.zero.span()); !ok) return ok.error();
  return detail::assemble(format, q, std::move(parts), t);
}

/// The inverse of `pack`: one byte a code, auxiliaries as stored, in f32. pack(unpack(p)) is p again.
/// @pre check_packed(p) (as every reader and `pack` guarantee)
[[nodiscard]] inline quantized_matrix unpack(const packed_matrix& p) {
  quantized_matrix q = quantized_matrix::allocate(p.format, p.method);
  with_layout(p.format.bits, [&](auto layout) {
    for (std::size_t i = 0; i < p.format.rows; ++i)
      layout.unpack_row(p.code_row(i), q.codes.span().subspan(i * p.format.cols, p.format.cols));
  });
  const std::size_t groups = p.format.groups();
  std::vector<float> zero(groups);
  for (std::size_t i = 0; i < p.format.rows; ++i) {
    load_auxiliaries(p, i, std::span{q.scale}.subspan(i * groups, groups), zero);
    if (p.format.has_zero)
      std::copy(zero.begin(), zero.end(), q.zero.begin() + static_cast<std::ptrdiff_t>(i * groups));
  }
  load_floats(p.col_scale.data(), p.format.col_scale_type, q.col_scale);
  load_floats(p.scale_base.data(), storage(p.format.aux), q.scale_base);
  load_floats(p.zero_base.data(), storage(p.format.aux), q.zero_base);
  load_floats(p.levels.data(), dtype::f32, q.custom_levels);
  return q;
}

} // namespace sinq
