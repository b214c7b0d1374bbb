#pragma once

#include "../core/matrix_view.hpp"
#include "../core/wide.hpp"
#include "grids.hpp"

#include <array>
#include <cstdint>

SINQ_SEPARATE_ROUNDING_BEGIN

namespace sinq::detail {

/// Groups are fitted 32 at a time, one a lane, the lanes being rows: every sum runs down a lane from the first column
/// to the last, in whatever width the machine has, so that results do not depend on it.
inline constexpr std::size_t fit_lanes = 32;
using float_lanes = std::array<float, fit_lanes>;

/// 32 groups of n weights x, and the weights m of their squared errors, which the lanes share.
struct lane_block {
  const float* values;  ///< [n x 32]
  const float* weights; ///< [n], > 0
  std::size_t size;     ///< n >= 1
};

/// to[j][lane] = from[lane][j] of 32 rows of n weights, and the least and largest of each: squares of W x W weights,
/// whose halves, then quarters .., are exchanged until columns are rows.
struct transpose_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const std::array<const float*, fit_lanes>& from, std::size_t n, float* to,
                              float_lanes& lows, float_lanes& highs) {
    for (std::size_t lane = 0; lane < fit_lanes; lane += W) {
      vec<float, W> rows[W], column{}, low{}, high;
      std::size_t j = 0;
      for (std::size_t r = 0; r < W; ++r) low[r] = from[lane + r][0];
      high = low;
      for (; j + W <= n; j += W) {
        for (std::size_t r = 0; r < W; ++r) load(from[lane + r] + j, rows[r]);
        transpose(rows);
        for (std::size_t r = 0; r < W; ++r) keep(rows[r], low, high, to + (j + r) * fit_lanes + lane);
      }
      for (; j < n; ++j) {
        for (std::size_t r = 0; r < W; ++r) column[r] = from[lane + r][j];
        keep(column, low, high, to + j * fit_lanes + lane);
      }
      store(low, lows.data() + lane);
      store(high, highs.data() + lane);
    }
  }

private:
  template <class Vector>
  SINQ_INLINE static void keep(const Vector& column, Vector& low, Vector& high, float* to) {
    low = column < low ? column : low;
    high = column > high ? column : high;
    store(column, to);
  }
};

/// x[j][lane] *= by[0][lane], then by[1][lane]
struct scale_lanes_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(float* x, std::size_t n, const std::array<float_lanes, 2>& by) {
    for (std::size_t lane = 0; lane < fit_lanes; lane += W) {
      vec<float, W> first, second, values;
      load(by[0].data() + lane, first);
      load(by[1].data() + lane, second);
      for (std::size_t j = 0; j < n; ++j) {
        load(x + j * fit_lanes + lane, values);
        store(values * first * second, x + j * fit_lanes + lane);
      }
    }
  }
};

template <class Grid>
struct error_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const Grid& grid, const lane_block& block, const float_lanes& scales,
                              const float_lanes& zeros, float_lanes& errors) {
    for (std::size_t lane = 0; lane < fit_lanes; lane += W) {
      vec<float, W> scale, zero, x, level, error{};
      load(scales.data() + lane, scale);
      load(zeros.data() + lane, zero);
      const vec<float, W> inverse = scale == 0.0f ? vec<float, W>{} : 1.0f / scale;
      for (std::size_t j = 0; j < block.size; ++j) {
        load(block.values + j * fit_lanes + lane, x);
        grid.round(x * inverse + zero, level);
        const vec<float, W> difference = x - scale * (level - zero);
        error += (difference * difference) * block.weights[j];
      }
      store(error, errors.data() + lane);
    }
  }
};

/// Errors sum m (x - s (level - z))^2 of 32 groups whose scales and zero points are given. A scale of 0 stands for
/// zeros.
template <class Grid>
void group_errors(const Grid& grid, const lane_block& block, const float_lanes& scale, const float_lanes& zero,
                  float_lanes& error) {
  run_wide<error_loop<Grid>>(grid, block, scale, zero, error);
}

/// How a weight comes to its place on the grid: x power[0] power[1] / s + z, the powers being of two, and none of the
/// products leaving the range of floats.
struct grid_place {
  std::array<float, 2> power;
  float inverse; ///< 1 / s, or 0 for the place z
  float zero;
};

/// Codes of n columns of some rows.
template <class Grid>
struct code_loop {
  /// @param places  of each row
  /// @param codes   of the first row and column, `stride` from row to row
  template <std::size_t W>
  SINQ_INLINE static void run(const Grid& shared, const matrix_view<const float>& x,
                              const std::array<grid_place, fit_lanes>& places, std::uint8_t* codes,
                              std::size_t stride) {
    const Grid grid = shared; // which no code that is written can change
    for (std::size_t i = 0; i < x.rows(); ++i) {
      const grid_place to = places[i];
      const float* const row = x.data() + i * x.stride();
      std::size_t j = 0;
      for (; j + W <= x.cols(); j += W) write<W>(grid, row + j, to, codes + i * stride + j);
      for (; j < x.cols(); ++j) write<1>(grid, row + j, to, codes + i * stride + j);
    }
  }

private:
  template <std::size_t W>
  SINQ_INLINE static void write(const Grid& grid, const float* x, const grid_place& to, std::uint8_t* codes) {
    vec<float, W> values;
    vec<std::int32_t, W> code;
    load(x, values);
    grid.find_codes(values * to.power[0] * to.power[1] * to.inverse + to.zero, code);
    store(__builtin_convertvector(code, vec<std::uint8_t, W>), codes);
  }
};

} // namespace sinq::detail

SINQ_SEPARATE_ROUNDING_END
