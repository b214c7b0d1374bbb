#pragma once

#include "../core/parallel.hpp"
#include "../core/weight_view.hpp"
#include "block_sink.hpp"
#include "quantizer.hpp"

#include <algorithm>
#include <cstdint>
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

/// A tile of floats, row by row, for quantizers that bring no workspace of their own.
struct tile_of_rows {
  std::vector<float> values;
  matrix_view<float> view;

  /// False if a weight is not finite.
  [[nodiscard]] bool load(const weight_view& w, std::size_t i0, std::size_t j0, std::size_t rows, std::size_t cols) {
    values.resize(rows * cols);
    view = {values.data(), rows, cols};
    return load_finite(w, i0, j0, view);
  }
};

/// Where the tiles of a quantizer are loaded.
template <class Q>
struct tile_workspace_of {
  using type = tile_of_rows;
};
template <tile_quantizer Q>
struct tile_workspace_of<Q> {
  using type = typename Q::tile_workspace;
};

/// Neighbouring tiles that one task quantizes, in one workspace: up to eight of 2^21 weights in all, and few enough
/// that the tasks are many.
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
        for (std::size_t r = i + count; r < std::min(i + 2 * count, w_.rows()); ++r)
          fetch_ahead(w_.bytes(r, 0), w_.cols() * size_bytes(w_.type()));
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
  for (std::size_t i = 0; i < part->scale.size(); ++i) to.scale[i * to.groups] = part->scale[i];
  for (std::size_t i = 0; i < part->zero.size(); ++i) to.zero[i * to.groups] = part->zero[i];
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
    const std::size_t height = std::min(rows, w.rows() - i0), width = std::min(bundle_cols, w.cols() - j0);
    const std::size_t tiles = (width + cols - 1) / cols;
    typename tile_workspace_of<Q>::type work;
    if constexpr (tile_quantizer<Q>) q.prepare(work);
    std::vector<float> scale(height * tiles), zero(height * tiles);
    for (std::size_t tile = 0; tile < tiles; ++tile) {
      const std::size_t col = j0 + tile * cols;
      float* const t = format.has_col_scale ? &out.col_scale[format.row_tile(i0) * w.cols() + col] : nullptr;
      const tile_result to{*target, i0, col, scale.data() + tile, zero.data() + tile, t, tiles};
      if (!work.load(w, i0, col, height, std::min(cols, w.cols() - col)))
        return make_error(errc::non_finite, "non-finite weight");
      if constexpr (requires { work.expect(w, i0, col); })
        if (tile + 1 < tiles && w.cols() - col >= 2 * cols) work.expect(w, i0, col + cols);
      if constexpr (tile_quantizer<Q>)
        q.tile(work, to);
      else if (result<void> ok = quantize_tile(q, work.view, format, to); !ok)
        return ok;
    }
    (*target).put_groups(i0, j0 / format.group_size, {scale.data(), height, tiles}, {zero.data(), height, tiles});
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
/// Memory: beside the result, a tile for each thread.
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
