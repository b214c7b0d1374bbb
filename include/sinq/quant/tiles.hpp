#pragma once

#include "../core/parallel.hpp"
#include "../core/weight_view.hpp"
#include "block_sink.hpp"
#include "quantizer.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
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
  [[nodiscard]] std::size_t rows() const { return rows_; }
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

namespace detail {

/// What quantize_tiles and quantize_rows have made of all rows, or why they could not.
[[nodiscard]] inline result<quantized_matrix> finished(result<void> done, const weight_view& w, quantized_matrix out) {
  if (done) return out;
  if (done.error().code != errc::non_finite) return std::move(done).error();
  return non_finite_weight(w);
}

/// Where parts of a matrix go: to the sink that is given, or into `out`, which then gets room for them.
class part_target {
public:
  part_target(const matrix_format& format, std::string method, block_sink* given, quantized_matrix& out)
      : own_{out}, used_{given != nullptr ? *given : own_} {
    out = given != nullptr ? quantized_matrix::outline(format, std::move(method))
                           : quantized_matrix::allocate(format, std::move(method));
  }
  [[nodiscard]] block_sink& operator*() { return used_; }

private:
  matrix_sink own_;
  block_sink& used_;
};

/// Quantizes some rows at a time, about 16 KiB of floats, so that the weights are read from memory once.
template <block_quantizer Q>
class row_worker {
public:
  row_worker(const weight_view& w, const Q& q, block_sink& to)
      : w_{w}, q_{q}, to_{to}, floats_{w.floats()}, groups_{(w.cols() + q.group_size() - 1) / q.group_size()},
        rows_{std::clamp<std::size_t>(4096 / w.cols(), 1, w.rows())}, codes_(rows_ * w.cols()), scale_(rows_ * groups_),
        zero_(rows_ * groups_) {}

  /// @param prepare  changes a row before it is quantized, or fails; nullptr: nothing does
  template <class Prepare>
  [[nodiscard]] result<void> run(std::size_t begin, std::size_t end, const Prepare& prepare) {
    for (std::size_t i = begin; i < end; i += rows_) {
      const std::size_t count = std::min(rows_, end - i);
      matrix_view<const float> some;
      std::size_t ahead = 0;
      if (floats_ && std::is_null_pointer_v<Prepare>) {
        some = floats_->block(i, 0, count, w_.cols());
        if (i + count < w_.rows()) ahead = count * some.stride();
      } else {
        loaded_.resize(rows_ * w_.cols());
        const matrix_view<float> to{loaded_.data(), count, w_.cols()};
        for (std::size_t r = 0; r < count; ++r) w_.load(i + r, 0, to.row(r));
        some = to;
      }
      for (std::size_t r = 0; r < count; ++r)
        if (!all_finite(some.row(r))) return make_error(errc::non_finite, "non-finite weight");
      if constexpr (!std::is_null_pointer_v<Prepare>)
        for (std::size_t r = 0; r < count; ++r)
          if (result<void> ok = prepare(i + r, std::span{loaded_}.subspan(r * w_.cols(), w_.cols())); !ok) return ok;
      q_.block(some, {codes_.data(), scale_.data(), zero_.data()}, ahead);
      to_.put_codes(i, 0, {codes_.data(), count, w_.cols()});
      to_.put_groups(i, 0, {scale_.data(), count, groups_}, {zero_.data(), count, groups_});
    }
    return {};
  }

private:
  const weight_view& w_;
  const Q& q_;
  block_sink& to_;
  std::optional<matrix_view<const float>> floats_;
  std::size_t groups_, rows_;
  std::vector<std::uint8_t> codes_;
  std::vector<float> scale_, zero_, loaded_;
};

/// Quantizes W row by row, in parallel.
template <block_quantizer Q, class Prepare = std::nullptr_t>
[[nodiscard]] result<quantized_matrix> quantize_rows(const weight_view& w, const matrix_format& format,
                                                     std::string method, const Q& q, const run_options& run,
                                                     block_sink* sink, const Prepare& prepare = nullptr) {
  quantized_matrix out;
  part_target target{format, std::move(method), sink, out};
  const auto rows = [&](std::size_t begin, std::size_t end) {
    return row_worker<Q>{w, q, *target}.run(begin, end, prepare);
  };
  result<void> done = parallel_for(run.on(), w.rows(), tile_rows(w.rows(), w.cols()), rows, run.progress);
  return finished(std::move(done), w, std::move(out));
}

/// Quantizes a tile by a quantizer that makes a quantized_matrix of it.
template <class Q>
[[nodiscard]] result<void> quantize_tile(const Q& q, matrix_view<const float> tile,
                                         [[maybe_unused]] const matrix_format& format, const tile_result& to) {
  const result<quantized_matrix> part = q(tile);
  if (!part) return part.error();
  SINQ_ASSERT(part->format.has_zero == format.has_zero && part->format.has_col_scale == format.has_col_scale);
  if (!part->codes.empty()) to.sink.put_codes(to.row, to.col, part->code_matrix());
  for (std::size_t i = 0; i < tile.rows(); ++i) to.scale[i * to.stride] = part->scale[i];
  for (std::size_t i = 0; i < part->zero.size(); ++i) to.zero[i * to.stride] = part->zero[i];
  std::copy(part->col_scale.begin(), part->col_scale.end(), to.t);
  return {};
}

/// Quantizes W in tiles of one group of columns, in parallel; see quantize_tiles.
template <quantizer Q>
[[nodiscard]] result<quantized_matrix> quantize_bundles(const weight_view& w, const matrix_format& format,
                                                        std::string method, const Q& q, const run_options& run,
                                                        block_sink* sink) {
  quantized_matrix out;
  part_target target{format, std::move(method), sink, out};
  const std::size_t cols = std::min(format.group_size, w.cols());
  const std::size_t rows = format.tile_rows != 0 ? format.tile_height()
                           : Q::row_independent  ? tile_rows(w.rows(), cols)
                                                 : w.rows();
  const std::size_t row_tiles = (w.rows() + rows - 1) / rows;
  const std::size_t bundle_cols = tiles_at_once(rows * cols, format.groups()) * cols;
  const std::size_t bundles = (w.cols() + bundle_cols - 1) / bundle_cols;
  const auto quantize_bundle = [&](std::size_t n, std::size_t) -> result<void> {
    const std::size_t i0 = n % row_tiles * rows;
    const std::size_t j0 = n / row_tiles * bundle_cols;
    tile_bundle bundle{i0, j0, std::min(rows, w.rows() - i0), cols, std::min(bundle_cols, w.cols() - j0)};
    if (!bundle.load(w)) return make_error(errc::non_finite, "non-finite weight");
    std::vector<float> scale(bundle.rows() * bundle.size()), zero(scale.size());
    for (std::size_t tile = 0; tile < bundle.size(); ++tile) {
      const std::size_t col = j0 + tile * cols;
      float* const t = format.has_col_scale ? &out.col_scale[format.row_tile(i0) * w.cols() + col] : nullptr;
      const tile_result to{*target, i0, col, scale.data() + tile, zero.data() + tile, bundle.size(), t};
      if constexpr (tile_quantizer<Q>)
        q.tile(bundle.tile(tile), to);
      else if (result<void> ok = quantize_tile(q, bundle.tile(tile), format, to); !ok)
        return ok;
    }
    (*target).put_groups(i0, j0 / format.group_size, {scale.data(), bundle.rows(), bundle.size()},
                         {zero.data(), bundle.rows(), bundle.size()});
    return {};
  };
  result<void> done = parallel_for(run.on(), row_tiles * bundles, 1, quantize_bundle, run.progress);
  return finished(std::move(done), w, std::move(out));
}

} // namespace detail

/// Quantizes W tile by tile, a tile being one group of columns of all rows (of tile_rows of them in two dimensions), or
/// row by row where rows do not depend on each other, in parallel; the result is the same for any executor.
/// @param w       [N x K] of any floating type, finite
/// @param format  of the result; its group_size is the width of a tile, its tile_rows the height
/// @param q       called with tiles of floats, each of one group
/// @param sink    takes codes, scales and zero points, which the result is then without; borrowed
/// @errors        errc::empty_matrix, errc::non_finite (the first row and column in row-major order), errc::cancelled,
///                and those of q
/// Memory: beside the result, the tiles in flight, up to eight of 8 MiB in all for each thread, or one that is larger.
template <quantizer Q>
[[nodiscard]] result<quantized_matrix> quantize_tiles(const weight_view& w, const matrix_format& format,
                                                      std::string method, const Q& q, const run_options& run = {},
                                                      block_sink* sink = nullptr) {
  if (result<void> ok = check_quantizable(w, format.group_size); !ok) return ok.error();
  if constexpr (block_quantizer<Q>)
    return detail::quantize_rows(w, format, std::move(method), q, run, sink);
  else
    return detail::quantize_bundles(w, format, std::move(method), q, run, sink);
}

} // namespace sinq
