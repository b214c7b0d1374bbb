#pragma once

#include "block_reduce.cuh"
#include "quantize_args.cuh"

#include <cfloat>

namespace sinq::cuda::kernels {

/// Standard deviations of the rows and columns of a tile, A[i][j] = w[i][j] * col_factor[j] * row_factor[i], by all
/// threads of a block, in the order of math/block_sums.hpp and with its numerics: the same bits as on the CPU.
///
///   a warp has 32 rows; lane L has columns L and L + 32 of a block of 64, lanes L and L ^ 16 those of CPU lane L % 16
///   row:     ((a[l] + a[l + 16]) + a[l + 32]) + a[l + 48], then 16 lanes as a tree; f64 over blocks of columns
///   column:  32 rows one after the other; f64 over blocks of rows, by one thread for each column
struct tile_statistics {
  const quantize_args& a;
  unsigned tile;
  const float* col_factor; ///< [tile_cols] in shared memory
  double* col_std;         ///< the same

  [[nodiscard]] __device__ __forceinline__ unsigned cols() const { return a.tile_cols(tile); }
  [[nodiscard]] __device__ __forceinline__ std::size_t row_at(unsigned i) const {
    return std::size_t{tile} * a.format.rows + i;
  }
  [[nodiscard]] __device__ __forceinline__ float entry(unsigned i, unsigned j) const {
    const float value = a.at(i, std::size_t{tile} * a.format.group_size + j);
    return rounded::mul(rounded::mul(value, col_factor[j]), a.row_factor[row_at(i)]);
  }

  /// Columns of the block that begins at `begin`: 64 of them, then 16, then the rest.
  [[nodiscard]] __device__ __forceinline__ unsigned block_cols(unsigned begin) const {
    const unsigned left = cols() - begin;
    return left >= 64 ? 64 : left < 16 ? left : 16;
  }

  /// The sum of CPU lanes, given this lane's values of columns L and L + 32.
  [[nodiscard]] __device__ __forceinline__ static float row_sum(float first, float second) {
    const float other_first = __shfl_xor_sync(ptx::all_lanes, first, 16);
    const float other_second = __shfl_xor_sync(ptx::all_lanes, second, 16);
    const bool lower = threadIdx.x % 32 < 16;
    float sum = rounded::add(first, other_first);
    sum = rounded::add(sum, lower ? second : other_second);
    sum = rounded::add(sum, lower ? other_second : second);
    SINQ_UNROLL
    for (int flipped = 8; flipped > 0; flipped /= 2)
      sum = rounded::add(sum, __shfl_xor_sync(ptx::all_lanes, sum, flipped));
    return sum;
  }

  /// Sums of 32 rows: each row's go to the lane of its number, each column's to a.partial.
  __device__ __forceinline__ void add_rows(unsigned row_block, double& sum, double& square) const {
    const unsigned lane = threadIdx.x % 32, first_row = row_block * 32;
    const unsigned rows = a.format.rows - first_row < 32 ? a.format.rows - first_row : 32;
    float2* const partial = a.partial + (std::size_t{tile} * a.row_blocks() + row_block) * a.format.group_size;
    for (unsigned begin = 0; begin < cols(); begin += block_cols(begin)) {
      const unsigned width = block_cols(begin);
      const bool has_first = lane < width, has_second = lane + 32 < width;
      float2 first = make_float2(0, 0), second = make_float2(0, 0);
      for (unsigned r = 0; r < rows; ++r) {
        const float x = has_first ? entry(first_row + r, begin + lane) : 0.0f;
        const float y = has_second ? entry(first_row + r, begin + lane + 32) : 0.0f;
        const float xx = rounded::mul(x, x), yy = rounded::mul(y, y);
        first = make_float2(rounded::add(first.x, x), rounded::add(first.y, xx));
        second = make_float2(rounded::add(second.x, y), rounded::add(second.y, yy));
        const float of_row = row_sum(x, y), squares_of_row = row_sum(xx, yy);
        if (r == lane) {
          sum = rounded::add(sum, static_cast<double>(of_row));
          square = rounded::add(square, static_cast<double>(squares_of_row));
        }
      }
      if (has_first) partial[begin + lane] = first;
      if (has_second) partial[begin + lane + 32] = second;
    }
  }

  /// From sums, or in two passes where they may be wrong: see variance_loop and stddev_two_pass.
  template <class Get>
  [[nodiscard]] __device__ __forceinline__ static double stddev(unsigned n, double sum, double square, Get get) {
    if (n <= 1) return 0;
    const double terms = n, limit = 0x1p-4, least = rounded::mul(terms, static_cast<double>(FLT_MIN));
    const double spread = rounded::sub(square, rounded::mul(rounded::mul(sum, sum), rounded::div(1.0, terms)));
    const double floor = rounded::larger(least, rounded::mul(square, limit));
    if (spread > floor) return rounded::root(rounded::mul(spread, rounded::div(1.0, terms - 1)));
    unsigned first = 0;
    while (first < n && get(first) == 0) ++first;
    if (first == n) return 0;
    double total = 0, squares = 0;
    for (unsigned k = 0; k < n; ++k) total = rounded::add(total, static_cast<double>(get(k)));
    const double mean = rounded::div(total, terms);
    for (unsigned k = 0; k < n; ++k) {
      const double apart = rounded::sub(static_cast<double>(get(k)), mean);
      squares = rounded::add(squares, rounded::mul(apart, apart));
    }
    return rounded::root(rounded::div(squares, terms - 1));
  }

  /// Writes a.row_std of the tile, and col_std; all threads may read them when it returns.
  __device__ __forceinline__ void measure() const {
    const unsigned lane = threadIdx.x % 32, rows = a.format.rows;
    for (unsigned block = threadIdx.x / 32; block < a.row_blocks(); block += blockDim.x / 32) {
      double sum = 0, square = 0;
      add_rows(block, sum, square);
      const unsigned i = block * 32 + lane;
      if (i < rows) a.row_std[row_at(i)] = stddev(cols(), sum, square, [&](unsigned j) { return entry(i, j); });
    }
    __syncthreads();
    for (unsigned j = threadIdx.x; j < cols(); j += blockDim.x) {
      double sum = 0, square = 0;
      const float2* const partial = a.partial + std::size_t{tile} * a.row_blocks() * a.format.group_size + j;
      for (unsigned block = 0; block < a.row_blocks(); ++block) {
        const float2 some = partial[std::size_t{block} * a.format.group_size];
        sum = rounded::add(sum, static_cast<double>(some.x));
        square = rounded::add(square, static_cast<double>(some.y));
      }
      col_std[j] = stddev(rows, sum, square, [&](unsigned i) { return entry(i, j); });
    }
    __syncthreads();
  }
};

} // namespace sinq::cuda::kernels
