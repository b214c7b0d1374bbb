#pragma once

#include "block_reduce.cuh"
#include "quantize_args.cuh"

#include <cfloat>

namespace sinq::cuda::kernels {

/// Rows that are looked at together, and how far apart they lie in shared memory: banks differ down a column.
inline constexpr unsigned staged_rows = 64, staged_stride = unit_cols + 1;
/// Lanes of the sums of a column, and rows that are added up before they enter them: tile_lanes and most_height of
/// math/column_tile.hpp.
inline constexpr unsigned column_lanes = 16, chunk_rows = 512;

/// Standard deviations of the rows and columns of a tile, A[i][j] = w[i][j] * col_factor[j] * row_factor[i], by all
/// threads of a block, in the order of math/tile_spread.hpp and with its numerics: the same bits as on the CPU.
///
///   row:     one thread; 64 columns one after another, then these blocks of columns
///   column:  16 threads, lane L of a half warp: rows L, L + 16, .. of a chunk of 512, then chunks; lanes as a tree
struct tile_statistics {
  /// Sums of x and x^2, each with a weight, over a part of a line, and over the parts before.
  struct weighed_sums {
    float sum = 0, square = 0, all = 0, all_square = 0;

    __device__ __forceinline__ void add(float x, float factor) {
      sum = rounded::add_product(x, factor, sum);
      square = rounded::add_product(rounded::mul(x, x), rounded::mul(factor, factor), square);
    }
    __device__ __forceinline__ void end_part() {
      all = rounded::add(all, sum);
      all_square = rounded::add(all_square, square);
      sum = square = 0;
    }
  };
  static constexpr unsigned column_parts = unit_cols * column_lanes / balance_threads;

  const quantize_args& a;
  unsigned tile;
  float power;             ///< weights are seen times this, twice
  const float* col_factor; ///< [tile_cols] in shared memory, as all that follows
  float* col_std;          ///< the same
  float* staged;           ///< [staged_rows x staged_stride]
  float* staged_factor;    ///< [staged_rows]

  [[nodiscard]] __device__ __forceinline__ unsigned cols() const { return a.tile_cols(tile); }
  [[nodiscard]] __device__ __forceinline__ std::size_t row_at(unsigned i) const {
    return std::size_t{tile} * a.format.rows + i;
  }
  [[nodiscard]] __device__ __forceinline__ float weight(unsigned i, unsigned j) const {
    return rounded::mul(rounded::mul(a.at(i, std::size_t{tile} * a.format.group_size + j), power), power);
  }

  /// Square roots of normal floats by Newton's steps from a guess by the bits: spread_of_sums of math/tile_spread.hpp.
  [[nodiscard]] __device__ __forceinline__ static float root(float x) {
    float inverse = ptx::bit_cast<float>(0x5f375a86u - (ptx::bit_cast<std::uint32_t>(x) >> 1));
    const float half = rounded::mul(x, 0.5f);
    SINQ_EACH (k, 3)
      inverse = rounded::mul(inverse, rounded::sub(1.5f, rounded::mul(rounded::mul(half, inverse), inverse)));
    return rounded::mul(x, inverse);
  }

  /// The standard deviation of n terms x, times a factor, from their sums, or in two passes where these may be wrong.
  /// @param get  x of term k
  template <class Get>
  [[nodiscard]] __device__ __forceinline__ static float stddev(unsigned n, const weighed_sums& of, float factor,
                                                               Get get) {
    if (n <= 1) return 0;
    const float terms = static_cast<float>(n);
    const float spread =
        rounded::sub(of.all_square, rounded::mul(rounded::mul(of.all, of.all), rounded::div(1.0f, terms)));
    const float floor = rounded::larger(rounded::mul(terms, FLT_MIN), rounded::mul(of.all_square, 0x1p-4f));
    if (spread > floor)
      return rounded::mul(root(rounded::mul(spread, rounded::div(1.0f, static_cast<float>(n - 1)))), factor);
    return static_cast<float>(rounded::mul(static_cast<double>(factor), in_two_passes(n, get)));
  }
  template <class Get>
  [[nodiscard]] __device__ __forceinline__ static double in_two_passes(unsigned n, Get get) {
    unsigned first = 0;
    while (first < n && get(first) == 0) ++first;
    if (first == n) return 0;
    double total = 0, squares = 0;
    for (unsigned k = 0; k < n; ++k) total = rounded::add(total, static_cast<double>(get(k)));
    const double mean = rounded::div(total, static_cast<double>(n));
    for (unsigned k = 0; k < n; ++k) {
      const double apart = rounded::sub(static_cast<double>(get(k)), mean);
      squares = rounded::add(squares, rounded::mul(apart, apart));
    }
    return rounded::root(rounded::div(squares, static_cast<double>(n - 1)));
  }

  /// Brings rows to shared memory.
  __device__ __forceinline__ void stage(unsigned first, unsigned count) const {
    for (unsigned n = threadIdx.x; n < count * cols(); n += blockDim.x)
      staged[n / cols() * staged_stride + n % cols()] = weight(first + n / cols(), n % cols());
    if (threadIdx.x < count) staged_factor[threadIdx.x] = a.row_factor[row_at(first + threadIdx.x)];
    __syncthreads();
  }

  /// Finds the standard deviation of a row that is staged.
  __device__ __forceinline__ void measure_row(unsigned first, unsigned r) const {
    weighed_sums of;
    for (unsigned j = 0; j < cols(); ++j) {
      of.add(staged[r * staged_stride + j], col_factor[j]);
      if (j % 64 == 63 || j + 1 == cols()) of.end_part();
    }
    a.row_std[row_at(first + r)] = stddev(cols(), of, staged_factor[r], [&](unsigned j) {
      return rounded::mul(staged[r * staged_stride + j], col_factor[j]);
    });
  }

  /// The sum of the 16 lanes of a half warp, as a tree.
  [[nodiscard]] __device__ __forceinline__ static float sum_of_lanes(float sum) {
    SINQ_UNROLL
    for (int flipped = 8; flipped > 0; flipped /= 2)
      sum = rounded::add(sum, __shfl_xor_sync(ptx::all_lanes, sum, flipped));
    return sum;
  }

  /// Writes a.row_std of the tile, and col_std; all threads may read them when it returns.
  __device__ __forceinline__ void measure() const {
    const unsigned rows = a.format.rows, lane = threadIdx.x % column_lanes;
    weighed_sums of[column_parts];
    const auto column_of = [](unsigned part) { return (threadIdx.x + part * balance_threads) / column_lanes; };
    for (unsigned first = 0; first < rows; first += staged_rows) {
      const unsigned count = rows - first < staged_rows ? rows - first : staged_rows;
      stage(first, count);
      if (threadIdx.x < count) measure_row(first, threadIdx.x);
      SINQ_EACH (part, column_parts) {
        const unsigned j = column_of(part);
        if (j < cols())
          for (unsigned r = lane; r < count; r += column_lanes)
            of[part].add(staged[r * staged_stride + j], staged_factor[r]);
        if ((first + staged_rows) % chunk_rows == 0 || first + count == rows) of[part].end_part();
      }
      __syncthreads();
    }
    SINQ_EACH (part, column_parts) {
      const unsigned j = column_of(part);
      of[part].all = sum_of_lanes(of[part].all);
      of[part].all_square = sum_of_lanes(of[part].all_square);
      if (lane == 0 && j < cols())
        col_std[j] = stddev(rows, of[part], col_factor[j],
                            [&](unsigned i) { return rounded::mul(weight(i, j), a.row_factor[row_at(i)]); });
    }
    __syncthreads();
  }
};

} // namespace sinq::cuda::kernels
