#pragma once

#include "../core/aligned_buffer.hpp"
#include "../core/convert.hpp"
#include "../core/parallel.hpp"
#include "../math/hadamard.hpp"
#include "aux_codes.hpp"
#include "layout.hpp"

#include <array>
#include <cstdint>
#include <vector>

namespace sinq {

namespace detail {

/// Rows that one task packs or unpacks.
inline constexpr std::size_t rows_per_task = 64;

/// One row while its weights are found.
struct unpacked_row {
  const std::uint8_t* codes; ///< [K]
  const float* scale;        ///< [G]
  const float* zero;         ///< [G]
  const float* t;            ///< [K]; null where all are 1
};

/// (s (level[q] - z)) t of a row. Levels: the number of them, or 0 for the uniform grid.
template <std::size_t Levels>
struct dequantize_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const matrix_format& f, const unpacked_row& row, const float* level, float* to,
                              bool streams) {
    if (streams)
      write<W, true>(f, row, level, to);
    else
      write<W, false>(f, row, level, to);
  }

private:
  template <std::size_t W, bool Streams>
  SINQ_INLINE static void write(const matrix_format& shared_format, const unpacked_row& shared_row, const float* level,
                                float* to) {
    const matrix_format f = shared_format; // copies, which no weight that is written can change
    const unpacked_row row = shared_row;
    for (std::size_t g = 0, begin = 0; begin < f.cols; ++g, begin += f.group_size) {
      const std::size_t end = std::min(f.cols, begin + f.group_size);
      std::size_t j = begin;
      for (; j + W <= end; j += W) some<W, Streams>(row, g, j, level, to);
      for (; j < end; ++j) some<1, false>(row, g, j, level, to);
    }
  }
  template <std::size_t W, bool Streams>
  SINQ_INLINE static void some(const unpacked_row& row, std::size_t g, std::size_t j, const float* level, float* to) {
    vec<std::int32_t, W> codes;
    vec<float, W> value, t;
    load_as<std::int32_t, W>(row.codes + j, codes);
    find_levels<(Levels <= 16 ? Levels : 1)>(level, codes, value);
    value = row.scale[g] * (value - row.zero[g]);
    if (row.t != nullptr) {
      load(row.t + j, t);
      value *= t;
    }
    if constexpr (Streams)
      stream(value, to + j);
    else
      store(value, to + j);
  }

  template <std::size_t Count, class Codes, class Vector>
  SINQ_INLINE static void find_levels(const float* level, const Codes& code, Vector& value) {
    if constexpr (Levels == 0) {
      value = __builtin_convertvector(code, Vector);
    } else if constexpr (Levels > 16) {
      for (std::size_t k = 0; k < sizeof code / sizeof code[0]; ++k) value[k] = level[code[k]];
    } else if constexpr (Count == 1) {
      value = Vector{} + level[0];
    } else { // the code's bits choose between halves of the table
      Vector upper;
      find_levels<Count / 2>(level, code, value);
      find_levels<Count / 2>(level + Count / 2, code, upper);
      value = (code & static_cast<std::int32_t>(Count / 2)) != 0 ? upper : value;
    }
  }
};

inline void dequantize_row(const matrix_format& f, const unpacked_row& row, std::span<const float> level, float* to,
                           bool streams) {
  if (f.grid == grid::uniform) return run_wide<dequantize_loop<0>>(f, row, level.data(), to, streams);
  switch (level.size()) {
  case 4: return run_wide<dequantize_loop<4>>(f, row, level.data(), to, streams);
  case 8: return run_wide<dequantize_loop<8>>(f, row, level.data(), to, streams);
  case 16: return run_wide<dequantize_loop<16>>(f, row, level.data(), to, streams);
  default: return run_wide<dequantize_loop<256>>(f, row, level.data(), to, streams);
  }
}

/// See sinq::dequantize_rows. @param streams  past the caches, which takes `out` and groups that begin with cache lines
inline void dequantize_rows(const packed_matrix& p, std::size_t row_begin, matrix_view<float> out, bool streams) {
  SINQ_ASSERT(row_begin + out.rows() <= p.format.rows && out.cols() == p.format.cols);
  const matrix_format& f = p.format;
  const std::vector<float> custom = custom_levels(p.levels);
  const std::span<const float> level = levels(f, custom);
  std::vector<std::uint8_t> codes(f.cols);
  std::vector<float> scale(f.groups());
  std::vector<float> zero(f.groups());
  std::vector<float> t(f.has_col_scale ? f.cols : 0);
  const std::size_t t_row = f.cols * size_bytes(f.col_scale_type);
  for (std::size_t i = 0; i < out.rows(); ++i) {
    const std::size_t row = row_begin + i;
    if (f.has_col_scale && (i == 0 || f.row_tile(row) != f.row_tile(row - 1)))
      load_floats(p.col_scale.data() + f.row_tile(row) * t_row, f.col_scale_type, t);
    with_layout(f.bits, [&](auto layout) { layout.unpack_row(p.code_row(row), codes); });
    load_auxiliaries(p, row, scale, zero);
    dequantize_row(f, {codes.data(), scale.data(), zero.data(), f.has_col_scale ? t.data() : nullptr}, level,
                   out.row(i).data(), streams);
    if (f.rotation != 0) hadamard_rotate(out.row(i), f.rotation);
  }
  if (streams) end_of_stream();
}

/// Whether floats are written past the caches: where they are more than caches hold, and nothing reads them again.
[[nodiscard]] inline bool streams_to(const matrix_format& f, matrix_view<float> out) {
  constexpr std::size_t line = buffer_alignment_bytes / sizeof(float), most_cached = std::size_t{1} << 20;
  return out.rows() * out.cols() > most_cached && f.rotation == 0 && f.group_size % line == 0 &&
         out.stride() % line == 0 && reinterpret_cast<std::uintptr_t>(out.data()) % buffer_alignment_bytes == 0;
}

} // namespace detail

/// Writes the weights of rows [row_begin, row_begin + out.rows()) that a packed matrix stands for.
/// V[i][j] = (s (level[q] - z)) t in f32, rounded after each operation, then rotated where the format says so; no NaN
/// or infinity unless a product overflows f32.
/// @param out  [rows x K]
inline void dequantize_rows(const packed_matrix& p, std::size_t row_begin, matrix_view<float> out) {
  detail::dequantize_rows(p, row_begin, out, false);
}

/// The weights that a packed matrix stands for, [N x K] row-major; see dequantize_rows.
inline void dequantize(const packed_matrix& p, matrix_view<float> out, const run_options& run = {}) {
  SINQ_ASSERT(out.rows() == p.format.rows);
  const bool streams = detail::streams_to(p.format, out);
  const auto rows = [&](std::size_t begin, std::size_t end) -> result<void> {
    detail::dequantize_rows(p, begin, out.block(begin, 0, end - begin, out.cols()), streams);
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
