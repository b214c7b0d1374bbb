#pragma once

#include "../core/matrix_view.hpp"
#include "../core/wide.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace sinq::detail {

/// Some rows of weights in groups of columns, of which the last of each row may be narrower.
struct grouped_rows {
  matrix_view<const float> w; ///< [rows x K]
  std::size_t group_size;
  std::size_t ahead = 0; ///< so many elements further on are the weights that come next, to be fetched meanwhile

  [[nodiscard]] std::size_t groups() const { return (w.cols() + group_size - 1) / group_size; } ///< G, of a row
  [[nodiscard]] std::size_t all_groups() const { return w.rows() * groups(); }
};

/// Where the results of some rows go.
struct rows_result {
  std::uint8_t* codes; ///< [rows x K]
  float* scale;        ///< [rows x G]
  float* zero;         ///< [rows x G], written whether or not it is stored
};

/// The smallest and largest weight of each group; which zero, if both are there, is not said. @pre no NaN
struct group_range_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const grouped_rows& rows, float* low, float* high) {
    const std::size_t whole = rows.group_size % W == 0 ? rows.w.cols() / rows.group_size / W * W : 0;
    for (std::size_t i = 0, n = 0; i < rows.w.rows(); ++i) {
      const float* const w = rows.w.data() + i * rows.w.stride();
      std::size_t g = 0;
      for (; g < whole; g += W, n += W) find<W>(w + g * rows.group_size, rows.group_size, low + n, high + n);
      for (std::size_t j = g * rows.group_size; j < rows.w.cols(); j += rows.group_size, ++n) {
        low[n] = high[n] = w[j];
        widen_loop<float>::template run<W>(w + j, std::min(rows.group_size, rows.w.cols() - j), low[n], high[n]);
      }
    }
  }

private:
  /// W groups at a time, whose lanes are compared in one tree.
  template <std::size_t W>
  SINQ_INLINE static void find(const float* w, std::size_t group_size, float* low, float* high) {
    vec<float, W> lows[W], highs[W], x;
    for (std::size_t n = 0; n < W; ++n, w += group_size) {
      load(w, x);
      lows[n] = highs[n] = x;
      for (std::size_t k = W; k < group_size; k += W) {
        load(w + k, x);
        lows[n] = x < lows[n] ? x : lows[n];
        highs[n] = x > highs[n] ? x : highs[n];
      }
    }
    join_lanes<W>(lows, take_lower{});
    join_lanes<W>(highs, take_higher{});
    store(lows[0], low);
    store(highs[0], high);
  }
};

/// Codes of the levels nearest to w / s + z; those of a group whose s is 0 are all `at_zero`.
template <class Grid>
struct nearest_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const grouped_rows& shared_rows, const Grid& shared, std::uint8_t at_zero,
                              const rows_result& to) {
    const grouped_rows rows = shared_rows; // copies, which no code that is written can change
    const Grid grid = shared;
    const float *scale = to.scale, *zero = to.zero;
    std::uint8_t* codes = to.codes;
    for (std::size_t i = 0; i < rows.w.rows(); ++i)
      for (std::size_t j = 0; j < rows.w.cols(); j += rows.group_size, ++scale, ++zero) {
        const float* const w = rows.w.data() + i * rows.w.stride() + j;
        const std::size_t count = std::min(rows.group_size, rows.w.cols() - j);
        if (*scale == 0)
          std::fill_n(codes, count, at_zero);
        else
          assign<W>(grid, w, count, rows.ahead, *scale, *zero, codes);
        codes += count;
      }
  }

private:
  template <std::size_t W>
  SINQ_INLINE static void assign(const Grid& grid, const float* w, std::size_t count, std::size_t ahead, float scale,
                                 float zero, std::uint8_t* codes) {
    const float inverse = 1 / scale;
    std::size_t k = 0;
    for (; k + W <= count; k += W) {
      __builtin_prefetch(w + k + ahead, 0, 2); // into the second cache: many lines may be on their way there
      write<W>(w + k, scale, inverse, zero, grid, codes + k);
    }
    for (; k < count; ++k) write<1>(w + k, scale, inverse, zero, grid, codes + k);
  }
  template <std::size_t W>
  SINQ_INLINE static void write(const float* w, float scale, float inverse, float zero, const Grid& grid,
                                std::uint8_t* codes) {
    vec<float, W> x;
    vec<std::int32_t, W> code;
    load(w, x);
    fast_divisor<W>{vec<float, W>{} - scale, vec<float, W>{} + inverse}.divide(x);
    grid.find_codes(x + zero, code);
    store(__builtin_convertvector(code, vec<std::uint8_t, W>), codes);
  }
};

} // namespace sinq::detail
