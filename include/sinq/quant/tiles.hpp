#pragma once

#include "../core/parallel.hpp"
#include "../core/weight_view.hpp"
#include "quantizer.hpp"

#include <algorithm>
#include <optional>
#include <vector>

namespace sinq {

namespace detail {

/// Rows of a tile of at most about 1 MiB of floats, for quantizers that may cut a matrix between rows.
[[nodiscard]] constexpr std::size_t tile_rows(std::size_t rows, std::size_t tile_cols) {
  return std::clamp<std::size_t>((std::size_t{1} << 18) / tile_cols, 1, rows);
}

/// Copies the result of one tile, whose first element is (i0, j0), into that of the whole matrix.
inline void place(const quantized_matrix& tile, std::size_t i0, std::size_t j0, quantized_matrix& whole) {
  const std::size_t groups = whole.format.groups();
  const std::size_t tile_groups = tile.format.groups();
  const std::size_t g0 = j0 / whole.format.group_size;
  for (std::size_t i = 0; i < tile.format.rows; ++i) {
    std::copy_n(tile.codes.data() + i * tile.format.cols, tile.format.cols,
                whole.codes.data() + (i0 + i) * whole.format.cols + j0);
    std::copy_n(tile.scale.begin() + static_cast<std::ptrdiff_t>(i * tile_groups), tile_groups,
                whole.scale.begin() + static_cast<std::ptrdiff_t>((i0 + i) * groups + g0));
    if (whole.format.has_zero)
      std::copy_n(tile.zero.begin() + static_cast<std::ptrdiff_t>(i * tile_groups), tile_groups,
                  whole.zero.begin() + static_cast<std::ptrdiff_t>((i0 + i) * groups + g0));
  }
  if (whole.format.has_col_scale)
    std::copy(tile.col_scale.begin(), tile.col_scale.end(),
              whole.col_scale.begin() +
                  static_cast<std::ptrdiff_t>(whole.format.row_tile(i0) * whole.format.cols + j0));
}

/// Reads a block of weights as floats; false if one of them is not finite.
[[nodiscard]] inline bool load_finite(const weight_view& w, std::size_t i0, std::size_t j0, matrix_view<float> to) {
  bool finite = true;
  for (std::size_t i = 0; i < to.rows(); ++i) {
    w.load(i0 + i, j0, to.row(i));
    for (const float value : to.row(i)) finite &= is_finite(value);
  }
  return finite;
}

/// The error for a matrix of which load_finite has found a part that is not finite.
[[nodiscard]] inline error non_finite_weight(const weight_view& w) {
  const auto where = find_non_finite(w);
  SINQ_ASSERT(where.has_value());
  return make_error(errc::non_finite, "non-finite weight at row ", where->first, ", column ", where->second, " of ",
                    w.rows(), " x ", w.cols());
}

} // namespace detail

/// Whether a matrix can be quantized in groups of that size.
[[nodiscard]] inline result<void> check_quantizable(const weight_view& w, std::size_t group_size) {
  if (w.empty())
    return make_error(errc::empty_matrix, "the matrix is ", w.rows(), " x ", w.cols(),
                      ", expected at least one row and one column");
  if (group_size == 0) return make_error(errc::invalid_argument, "group_size is 0, expected >= 1");
  return {};
}

/// Quantizes W tile by tile, a tile being one group of columns of all rows (of tile_rows of them in two dimensions, and
/// of any number where rows do not depend on each other), in parallel; the result is the same for any executor.
/// @param w       [N x K] of any floating type, finite
/// @param format  of the result; its group_size is the width of a tile, its tile_rows the height
/// @param q       called with tiles of floats, each of one group
/// @errors        errc::empty_matrix, errc::non_finite (the first row and column in row-major order), errc::cancelled,
///                and those of q
/// Memory: beside the result, the tiles in flight.
template <quantizer Q>
[[nodiscard]] result<quantized_matrix> quantize_tiles(const weight_view& w, const matrix_format& format,
                                                      std::string method, const Q& q, const run_options& run = {}) {
  if (result<void> ok = check_quantizable(w, format.group_size); !ok) return ok.error();
  quantized_matrix out = quantized_matrix::allocate(format, std::move(method));
  const std::size_t cols = std::min(format.group_size, w.cols());
  const std::size_t rows = format.tile_rows != 0 ? format.tile_height()
                           : Q::row_independent  ? detail::tile_rows(w.rows(), cols)
                                                 : w.rows();
  const std::size_t row_tiles = (w.rows() + rows - 1) / rows;
  const auto quantize_tile = [&](std::size_t tile, std::size_t) -> result<void> {
    const std::size_t i0 = tile % row_tiles * rows;
    const std::size_t j0 = tile / row_tiles * cols;
    const std::size_t tile_rows = std::min(rows, w.rows() - i0);
    const std::size_t tile_cols = std::min(cols, w.cols() - j0);
    std::vector<float> values(tile_rows * tile_cols);
    if (!detail::load_finite(w, i0, j0, {values.data(), tile_rows, tile_cols}))
      return make_error(errc::non_finite, "non-finite weight");
    const result<quantized_matrix> part = q(matrix_view<const float>{values.data(), tile_rows, tile_cols});
    if (!part) return part.error();
    SINQ_ASSERT(part->format.has_zero == format.has_zero && part->format.has_col_scale == format.has_col_scale);
    detail::place(*part, i0, j0, out);
    return {};
  };
  result<void> done = parallel_for(run.on(), row_tiles * format.groups(), 1, quantize_tile, run.progress);
  if (done) return out;
  if (done.error().code != errc::non_finite) return done.error();
  return detail::non_finite_weight(w);
}

} // namespace sinq
