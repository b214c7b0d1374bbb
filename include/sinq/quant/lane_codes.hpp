#pragma once

#include "../math/column_tile.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

SINQ_SEPARATE_ROUNDING_BEGIN

namespace sinq::detail {

/// A walk over rows in memory that will be read soon: one at a time is fetched into the second cache, between other
/// work, as a core waits for few lines at once.
struct row_walk {
  static constexpr std::size_t line = buffer_alignment_bytes;
  const byte* row = nullptr;
  std::size_t row_bytes = 0, stride = 0, rows = 0; ///< bytes of a row, from one row to the next

  SINQ_INLINE void fetch() {
    if (rows == 0) return;
    fetch_ahead(row, row_bytes);
    row += stride;
    --rows;
  }
};

/// Some rows of one chunk of a tile, a multiple of 16 of them, and the factors that balance them.
struct lane_rows {
  const float* w; ///< of the first row and column
  std::size_t rows, cols, stride;
  const float* row; ///< [rows]
  const float* col; ///< [K]
  row_walk* next;   ///< of weights that will be read after these
};

/// The least, largest and, if asked for, mean (w[i][j] * col[j]) * row[i] of each row. A row's factor keeps the order
/// of its weights, so that one product a weight will do; a mean is found from four sums over every fourth column.
template <bool Mean>
struct lane_range_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const lane_rows& shared, float* lows, float* highs, float* means) {
    const lane_rows r = shared; // copies, which no range that is written can change
    row_walk next = *r.next;
    for (std::size_t i = 0; i < r.rows; i += W) {
      constexpr std::size_t parts = 4; // whose sums and comparisons do not wait for each other
      vec<float, W> row, sum[parts]{}, low[parts], high[parts];
      for (std::size_t k = 0; k < parts; ++k) {
        low[k] = vec<float, W>{} + std::numeric_limits<float>::max();
        high[k] = -low[k];
      }
      std::size_t j = 0;
      for (; j + parts <= r.cols; j += parts) {
        if (j % (2 * parts) == 0) next.fetch();
        for (std::size_t k = 0; k < parts; ++k) add<W>(r, i, j + k, low[k], high[k], sum[k]);
      }
      for (std::size_t k = 0; j < r.cols; ++j, ++k) add<W>(r, i, j, low[k], high[k], sum[k]);
      for (std::size_t k = 1; k < parts; ++k) {
        low[0] = low[k] < low[0] ? low[k] : low[0];
        high[0] = high[k] > high[0] ? high[k] : high[0];
      }
      load(r.row + i, row);
      store(low[0] * row, lows + i);
      store(high[0] * row, highs + i);
      if constexpr (Mean) store(((sum[0] + sum[1]) + (sum[2] + sum[3])) / static_cast<float>(r.cols) * row, means + i);
    }
    *r.next = next;
  }

private:
  template <std::size_t W>
  SINQ_INLINE static void add(const lane_rows& r, std::size_t i, std::size_t j, vec<float, W>& low, vec<float, W>& high,
                              vec<float, W>& sum) {
    vec<float, W> x;
    load(r.w + j * r.stride + i, x);
    __builtin_prefetch(r.w + j * r.stride + i + tile_lanes);
    x *= r.col[j];
    low = x < low ? x : low;
    high = x > high ? x : high;
    if constexpr (Mean) sum += x;
  }
};

/// Codes of the levels nearest to ((w[i][j] * col[j]) * row[i]) (1 / s) + z, or, where s is 0, to the place `of_zeros`.
///
///   16 words of 4 codes from 64 columns, one row to a lane   ->   64 bytes a row
template <class Grid>
struct lane_code_loop {
  /// @param codes  `code_stride` from row to row, a multiple of 64: columns up to there may be written
  template <std::size_t W>
  SINQ_INLINE static void run(const Grid& shared_grid, const lane_rows& shared, float of_zeros, const float* scale,
                              const float* zeros, std::uint8_t* codes, std::size_t code_stride) {
    const Grid grid = shared_grid; // copies, which no code that is written can change
    const lane_rows r = shared;
    row_walk next = *r.next;
    for (std::size_t i = 0; i < r.rows; i += W) {
      vec<float, W> row, s, zero;
      load(r.row + i, row);
      load(scale + i, s);
      load(zeros + i, zero);
      zero = s == 0.0f ? vec<float, W>{} + of_zeros : zero;
      const vec<float, W> per_scale = s == 0.0f ? vec<float, W>{} : 1.0f / s;
      for (std::size_t j = 0; j < r.cols; j += 4 * W) {
        vec<std::int32_t, W> words[W];
        for (std::size_t n = 0; n < W; ++n) {
          words[n] = vec<std::int32_t, W>{};
          const std::size_t begin = j + 4 * n;
          if (n % 2 == 0) next.fetch();
          for (std::size_t k = 0; k < 4 && begin + k < r.cols; ++k) {
            vec<float, W> x, place = zero;
            vec<std::int32_t, W> code;
            load(r.w + (begin + k) * r.stride + i, x);
            add_product(x * r.col[begin + k] * row, per_scale, place);
            grid.find_codes(place, code);
            words[n] |= code << static_cast<std::int32_t>(8 * k);
          }
        }
        transpose(words);
        for (std::size_t n = 0; n < W; ++n) store(words[n], codes + (i + n) * code_stride + j);
      }
    }
    *r.next = next;
  }
};

/// out[i][j] = (w[i][j] * col[j]) * row[i] of some rows of a chunk, for quantizers that take rows.
struct lanes_to_rows_loop {
  /// @param out  room for a multiple of 16 rows
  template <std::size_t W>
  SINQ_INLINE static void run(const lane_rows& r, const matrix_view<float>& out) {
    for (std::size_t i = 0; i < r.rows; i += W) {
      vec<float, W> row, square[W]{};
      load(r.row + i, row);
      for (std::size_t j = 0; j < r.cols; j += W) {
        const std::size_t count = std::min(W, r.cols - j);
        for (std::size_t k = 0; k < count; ++k) {
          load(r.w + (j + k) * r.stride + i, square[k]);
          square[k] = square[k] * r.col[j + k] * row;
        }
        transpose(square);
        for (std::size_t k = 0; k < W; ++k) __builtin_memcpy(&out(i + k, j), &square[k], count * sizeof(float));
      }
    }
  }
};

} // namespace sinq::detail

SINQ_SEPARATE_ROUNDING_END
