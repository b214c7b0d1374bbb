#pragma once

#include "../core/parallel.hpp"
#include "../core/weight_view.hpp"
#include "quantizer.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace sinq {

namespace detail {

/// Rows of a tile of at most about 1 MiB of floats, for quantizers that may cut a matrix between rows.
[[nodiscard]] constexpr std::size_t tile_rows(std::size_t rows, std::size_t tile_cols) {
  return std::clamp<std::size_t>((std::size_t{1} << 18) / tile_cols, 1, rows);
}

/// Reads a block of weights as floats; false if one of them is not finite.
[[nodiscard]] inline bool load_finite(const weight_view& w, std::size_t i0, std::size_t j0, matrix_view<float> to) {
  bool finite = true;
  for (std::size_t i = 0; i < to.rows(); ++i) {
    w.load(i0 + i, j0, to.row(i));
    finite &= all_finite(to.row(i));
  }
  return finite;
}

/// Some neighbouring tiles, side by side in the same rows, that one task quantizes. They are read and written together,
/// row by row: a row of a single tile is a few cache lines of a page, and pages are dear.
class tile_bundle {
public:
  /// @param i0, j0  the first row and column of the first tile, of rows x cols; the last tile may be narrower
  tile_bundle(std::size_t i0, std::size_t j0, std::size_t rows, std::size_t cols, std::size_t all_cols)
      : i0_{i0}, j0_{j0}, rows_{rows}, cols_{cols}, all_cols_{all_cols}, memory_{
                                                                             std::make_unique_for_overwrite<float[]>(
                                                                                 rows * all_cols + spare)} {
    const std::size_t over = reinterpret_cast<std::uintptr_t>(memory_.get()) % buffer_alignment_bytes;
    values_ = memory_.get() + (buffer_alignment_bytes - over) / sizeof(float);
  }

  [[nodiscard]] std::size_t size() const { return (all_cols_ + cols_ - 1) / cols_; }
  /// The weights of a tile, once they are loaded.
  [[nodiscard]] matrix_view<float> tile(std::size_t n) {
    return {values_ + n * rows_ * cols_, rows_, std::min(cols_, all_cols_ - n * cols_)};
  }

  /// Reads all tiles; false if a weight is not finite.
  [[nodiscard]] bool load(const weight_view& w) {
    constexpr std::size_t rows_at_once = 16; // still in the nearest cache when they are looked at
    bool finite = true;
    for (std::size_t begin = 0; begin < rows_; begin += rows_at_once) {
      const std::size_t end = std::min(rows_, begin + rows_at_once);
      for (std::size_t i = begin; i < end; ++i)
        for (std::size_t n = 0; n < size(); ++n) w.load(i0_ + i, j0_ + n * cols_, tile(n).row(i));
      for (std::size_t n = 0; n < size(); ++n)
        finite &= all_finite({tile(n).row(begin).data(), (end - begin) * tile(n).cols()});
    }
    return finite;
  }

  /// Copies the results of the tiles into that of the whole matrix.
  void place(std::span<const quantized_matrix> tiles, quantized_matrix& whole) const {
    const std::size_t groups = whole.format.groups();
    for (std::size_t i = 0; i < rows_; ++i) {
      std::uint8_t* code = whole.codes.data() + (i0_ + i) * whole.format.cols + j0_;
      std::size_t group = (i0_ + i) * groups + j0_ / whole.format.group_size;
      for (const quantized_matrix& tile : tiles) {
        if (!tile.codes.empty()) code = std::copy_n(tile.codes.data() + i * tile.format.cols, tile.format.cols, code);
        for (std::size_t g = 0; g < tile.format.groups(); ++g, ++group) {
          whole.scale[group] = tile.scale[i * tile.format.groups() + g];
          if (whole.format.has_zero) whole.zero[group] = tile.zero[i * tile.format.groups() + g];
        }
      }
    }
    if (!whole.format.has_col_scale) return;
    float* t = whole.col_scale.data() + whole.format.row_tile(i0_) * whole.format.cols + j0_;
    for (const quantized_matrix& tile : tiles) t = std::copy(tile.col_scale.begin(), tile.col_scale.end(), t);
  }

private:
  std::size_t i0_, j0_, rows_, cols_, all_cols_;
  // Aligned by hand: what one task frees, the next one gets from malloc, while an aligned new asks for a new place.
  static constexpr std::size_t spare = buffer_alignment_bytes / sizeof(float);
  std::unique_ptr<float[]> memory_;
  float* values_;
};

/// Tiles in a bundle: up to eight of 8 MiB of floats in all, and few enough that the tasks are many.
[[nodiscard]] constexpr std::size_t tiles_at_once(std::size_t tile_elements, std::size_t groups) {
  return std::clamp<std::size_t>(std::min((std::size_t{1} << 21) / tile_elements, groups / 8), 1, 8);
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
/// Memory: beside the result, the tiles in flight, up to eight of 8 MiB in all for each thread, or one that is larger.
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
  const std::size_t bundle_cols = detail::tiles_at_once(rows * cols, format.groups()) * cols;
  const std::size_t bundles = (w.cols() + bundle_cols - 1) / bundle_cols;
  const auto quantize_bundle = [&](std::size_t n, std::size_t) -> result<void> {
    const std::size_t i0 = n % row_tiles * rows;
    const std::size_t j0 = n / row_tiles * bundle_cols;
    detail::tile_bundle bundle{i0, j0, std::min(rows, w.rows() - i0), cols, std::min(bundle_cols, w.cols() - j0)};
    if (!bundle.load(w)) return make_error(errc::non_finite, "non-finite weight");
    std::vector<quantized_matrix> parts;
    for (std::size_t tile = 0; tile < bundle.size(); ++tile) {
      result<quantized_matrix> part = q(matrix_view<const float>{bundle.tile(tile)});
      if (!part) return std::move(part).error();
      SINQ_ASSERT(part->format.has_zero == format.has_zero && part->format.has_col_scale == format.has_col_scale);
      parts.push_back(*std::move(part));
    }
    bundle.place(parts, out);
    return {};
  };
  result<void> done = parallel_for(run.on(), row_tiles * bundles, 1, quantize_bundle, run.progress);
  if (done) return out;
  if (done.error().code != errc::non_finite) return done.error();
  return detail::non_finite_weight(w);
}

} // namespace sinq
