#pragma once

#include "../core/weight_view.hpp"
#include "../math/sinkhorn.hpp"
#include "group_loops.hpp"
#include "lane_codes.hpp"

#include <algorithm>
#include <span>
#include <vector>

namespace sinq::detail {

/// A block quantizer whose groups can be rows of a tile in columns, one to a lane:
///   q.takes_lanes()        whether its options allow it
///   q.needs_mean()         whether it asks for the mean of each group
///   q.fit(low, high, mean) scales and zero points in place of the least and largest weights of groups
///   q.with_grid(use)       calls use(grid, place of the code of zeros)
template <class Q>
concept lane_quantizer = requires(const Q& q, std::span<float> groups) {
  { q.takes_lanes() } -> std::same_as<bool>;
  { q.needs_mean() } -> std::same_as<bool>;
  q.fit(groups, groups, std::span<const float>{groups});
  q.with_grid([](const auto&, float) {});
};

/// One tile while it is balanced and quantized, a part of at most 32 rows after the other, and the memory for it: kept
/// from tile to tile.
///   W_hat[i][j] = (w[i][j] * (1 / t[j])) * (1 / row_scale[i])
class balanced_tile {
public:
  /// Rows [i0, i0 + N) and columns [j0, j0 + K) of a weight; false if one of them is not finite. Those that are loaded
  /// already stay.
  [[nodiscard]] bool load(const weight_view& w, std::size_t i0, std::size_t j0, std::size_t rows, std::size_t cols) {
    if (next_.w != &w || next_.i0 != i0 || next_.j0 != j0 || next_.loaded != rows || cols != weights().cols()) {
      sinkhorn_.tile.resize(rows, cols);
      if (begins_early()) sinkhorn_.alternating.start(rows, cols);
      for (std::size_t begin = 0; begin < rows; begin += count(begin)) put(w, i0, j0, begin, 2 * tile_lanes);
    }
    next_ = {};
    walk_ = {};
    largest_ = begins_early() ? sinkhorn_.alternating.largest() : weights().largest();
    row_scale_.assign(column_tile::whole(rows), 1.0f);
    row_factor_.resize(column_tile::whole(rows));
    col_factor_.resize(cols);
    low_.resize(most_rows);
    high_.resize(most_rows);
    mean_.resize(most_rows);
    code_stride_ = (cols + 63) / 64 * 64;
    codes_.resize(most_rows * code_stride_);
    return is_finite(largest_);
  }
  /// Says how tiles will be balanced that are loaded from now on; nullptr: not at all.
  void prepare(const sinkhorn_normalizer<float>* normalizer) { normalizer_ = normalizer; }
  /// Says which tile of the same shape comes next, so that load_next can take it in place of parts that are done with.
  void expect(const weight_view& w, std::size_t i0, std::size_t j0) {
    next_ = {&w, i0, j0, 0};
    const byte* const from = w.bytes(i0, j0);
    const std::size_t before = reinterpret_cast<std::uintptr_t>(from) % row_walk::line;
    walk_ = {from - before, before + weights().cols() * size_bytes(w.type()), w.row_bytes(), weights().rows()};
  }
  /// Takes the rows of the next tile, if there is one, in place of the part that begins with row `begin`.
  void load_next(std::size_t begin) {
    if (next_.w == nullptr) return;
    if (begin == 0 && begins_early()) sinkhorn_.alternating.start(weights().rows(), weights().cols());
    put(*next_.w, next_.i0, next_.j0, begin, 0);
    next_.loaded += count(begin);
  }
  [[nodiscard]] const column_tile& weights() const { return sinkhorn_.tile; }

  /// Finds the scales of rows, and those of columns, t [K]. @pre prepared
  void find_scales(float* t) {
    const std::size_t cols = weights().cols();
    normalizer_->find_scales(weights(), std::span{row_scale_}.first(weights().rows()), {t, cols}, sinkhorn_,
                             begins_early());
    const auto reciprocal = [](float scale) { return 1 / scale; };
    std::transform(row_scale_.begin(), row_scale_.end(), row_factor_.begin(), reciprocal);
    std::transform(t, t + cols, col_factor_.begin(), reciprocal);
  }
  /// Leaves all scales 1, for ranges of W itself.
  void leave_scales() {
    std::fill(row_factor_.begin(), row_factor_.end(), 1.0f);
    std::fill(col_factor_.begin(), col_factor_.end(), 1.0f);
  }
  [[nodiscard]] std::span<const float> row_scale() const { return std::span{row_scale_}.first(weights().rows()); }

  /// How many rows the part has that begins with row `begin`.
  [[nodiscard]] std::size_t count(std::size_t begin) const { return std::min(most_rows, weights().rows() - begin); }

  /// Finds the least, largest and, if asked for, mean W_hat of the rows of a part.
  void find_ranges(std::size_t begin, bool mean) {
    const lane_rows r = lanes(begin);
    if (mean)
      run_wide<lane_range_loop<true>>(r, low_.data(), high_.data(), mean_.data());
    else
      run_wide<lane_range_loop<false>>(r, low_.data(), high_.data(), mean_.data());
  }

  /// Codes, scales and zero points of a part.
  template <class Q>
  void quantize(const Q& q, std::size_t begin) {
    if constexpr (lane_quantizer<Q>)
      if (q.takes_lanes() && largest_ < 0x1p120f) return quantize_lanes(q, begin);
    rows_.resize(most_rows * weights().cols());
    const matrix_view<float> rows{rows_.data(), column_tile::whole(count(begin)), weights().cols()};
    run_wide<lanes_to_rows_loop>(lanes(begin), rows);
    q.block(rows.block(0, 0, count(begin), rows.cols()), {codes_.data(), low_.data(), high_.data()});
    codes_of_part_ = {codes_.data(), count(begin), rows.cols()};
  }

  [[nodiscard]] matrix_view<const std::uint8_t> codes() const { return codes_of_part_; } ///< of the part
  [[nodiscard]] std::span<float> scale() { return low_; } ///< of the part's rows, or the least W_hat
  [[nodiscard]] std::span<float> zero() { return high_; } ///< the same, or the largest

private:
  static constexpr std::size_t most_rows = 32; // of a part, which never crosses the chunks of the tile
  static constexpr std::size_t rows_of_pass = alternating_loop::most_rows; // that are balanced together
  static_assert(column_tile::most_height % most_rows == 0);

  [[nodiscard]] bool begins_early() const {
    return normalizer_ != nullptr && normalizer_->begins_early(weights().cols());
  }
  /// Takes the rows of a part, which may be the first pass of their balancing.
  void put(const weight_view& w, std::size_t i0, std::size_t j0, std::size_t begin, std::size_t ahead_rows) {
    const std::size_t end = begin + count(begin);
    if (!begins_early()) return sinkhorn_.tile.put<true>(w, i0, j0, begin, end - begin, ahead_rows);
    sinkhorn_.tile.put<false>(w, i0, j0, begin, end - begin, ahead_rows);
    const std::size_t taken = (end - 1) / rows_of_pass * rows_of_pass;
    if (end % rows_of_pass == 0 || end == weights().rows())
      sinkhorn_.alternating.add_rows(weights(), taken, end - taken);
  }
  [[nodiscard]] lane_rows lanes(std::size_t begin) {
    const column_tile& w = sinkhorn_.tile;
    return {w.column(begin / w.height(), 0) + begin % w.height(),
            column_tile::whole(count(begin)),
            w.cols(),
            w.stride(),
            row_factor_.data() + begin,
            col_factor_.data(),
            &walk_};
  }
  template <lane_quantizer Q>
  void quantize_lanes(const Q& q, std::size_t begin) {
    const std::size_t groups = column_tile::whole(count(begin));
    find_ranges(begin, q.needs_mean());
    q.fit(scale().first(groups), zero().first(groups), std::span{mean_}.first(groups));
    q.with_grid([&](const auto& grid, float of_zeros) {
      run_wide<lane_code_loop<std::remove_cvref_t<decltype(grid)>>>(grid, lanes(begin), of_zeros, scale().data(),
                                                                    zero().data(), codes_.data(), code_stride_);
    });
    codes_of_part_ = {codes_.data(), count(begin), weights().cols(), code_stride_};
  }

  /// A tile that comes after this one, and how many of its rows are here.
  struct next_tile {
    const weight_view* w = nullptr;
    std::size_t i0 = 0, j0 = 0, loaded = 0;
  };

  const sinkhorn_normalizer<float>* normalizer_ = nullptr; ///< borrowed
  sinkhorn_workspace<float> sinkhorn_;
  float largest_ = 0; ///< magnitude of the weights of this tile
  next_tile next_;
  row_walk walk_;
  std::vector<float> row_scale_;               ///< filled up with ones to a multiple of 16
  std::vector<float> row_factor_, col_factor_; ///< 1 over the scales of rows, filled up as well, and t
  std::vector<float> low_, high_, mean_, rows_;
  std::size_t code_stride_ = 0;
  std::vector<std::uint8_t> codes_;
  matrix_view<const std::uint8_t> codes_of_part_;
};

} // namespace sinq::detail
