#pragma once

#include "block_reduce.cuh"
#include "quantize_args.cuh"

#include <cfloat>

namespace sinq::cuda::kernels {

/// Rows that are looked at together, and how far apart they lie in shared memory: banks differ down a column.
inline constexpr unsigned staged_rows = 64, staged_stride = unit_cols + 1;
/// Lanes of the sums of a column: tile_lanes of math/column_tile.hpp.
inline constexpr unsigned column_lanes = 16;

/// A tile of which some rows at a time lie in shared memory, and whose lines the threads of a block share out:
///
///   row:     one thread
///   column:  16 threads, lane L of a half warp: rows L, L + 16, ..; lanes as a tree
struct staged_tile {
  static constexpr unsigned column_parts = unit_cols * column_lanes / balance_threads;

  const quantize_args& a;
  unsigned tile;
  float* value;  ///< [staged_rows x staged_stride] in shared memory, as all that follows
  float* factor; ///< [staged_rows]

  [[nodiscard]] __device__ __forceinline__ unsigned rows() const { return a.format.rows; }
  [[nodiscard]] __device__ __forceinline__ unsigned cols() const { return a.tile_cols(tile); }
  /// Where row i is in what lies between the kernels.
  [[nodiscard]] __device__ __forceinline__ std::size_t row_at(unsigned i) const {
    return std::size_t{tile} * a.format.rows + i;
  }
  [[nodiscard]] __device__ __forceinline__ float weight(unsigned i, unsigned j) const {
    return a.at(i, std::size_t{tile} * a.format.group_size + j);
  }
  /// How many rows are looked at together with row `first`, a multiple of staged_rows.
  [[nodiscard]] __device__ __forceinline__ unsigned count(unsigned first) const {
    return rows() - first < staged_rows ? rows() - first : staged_rows;
  }
  /// Brings rows to shared memory. @param get  a weight by row and column
  template <class Get>
  __device__ __forceinline__ void stage(unsigned first, Get get) const {
    for (unsigned n = threadIdx.x; n < count(first) * cols(); n += blockDim.x)
      value[n / cols() * staged_stride + n % cols()] = get(first + n / cols(), n % cols());
  }
  [[nodiscard]] __device__ __forceinline__ float at(unsigned r, unsigned j) const {
    return value[r * staged_stride + j];
  }

  /// The columns of a thread.
  [[nodiscard]] __device__ __forceinline__ static unsigned column_of(unsigned part) {
    return (threadIdx.x + part * balance_threads) / column_lanes;
  }
  /// Adds a thread's weights of the staged rows to sums of its columns, each with the factor of its row.
  template <class Sums>
  __device__ __forceinline__ void add_to_columns(unsigned staged, Sums (&of)[column_parts]) const {
    SINQ_EACH (part, column_parts) {
      const unsigned j = column_of(part);
      if (j < cols())
        for (unsigned r = threadIdx.x % column_lanes; r < staged; r += column_lanes) of[part].add(at(r, j), factor[r]);
    }
  }
  /// The sum of the 16 lanes of a half warp, as a tree.
  [[nodiscard]] __device__ __forceinline__ static float sum_of_lanes(float sum) {
    SINQ_UNROLL
    for (int flipped = 8; flipped > 0; flipped /= 2)
      sum = rounded::add(sum, __shfl_xor_sync(ptx::all_lanes, sum, flipped));
    return sum;
  }
  /// Calls f(part, j) in one thread of each column.
  template <class F>
  __device__ __forceinline__ void each_column(F f) const {
    SINQ_EACH (part, column_parts)
      if (threadIdx.x % column_lanes == 0 && column_of(part) < cols()) f(part, column_of(part));
  }
};

/// Standard deviations of lines of so many terms from their sums: spread_of_sums of math/tile_spread.hpp.
struct spread_of_sums {
  static constexpr float cancellation_limit = 0x1p-4f;
  float per_term, per_rest, least;

  __device__ __forceinline__ explicit spread_of_sums(unsigned n)
      : per_term{rounded::div(1.0f, static_cast<float>(n))}, per_rest{rounded::div(1.0f, static_cast<float>(n - 1))},
        least{rounded::mul(static_cast<float>(n), FLT_MIN)} {}

  /// The standard deviation times a factor; negative where it may be wrong.
  [[nodiscard]] __device__ __forceinline__ float find(float sum, float square, float factor) const {
    const float spread = rounded::sub(square, rounded::mul(rounded::mul(sum, sum), per_term));
    const float variance = rounded::mul(spread, per_rest);
    if (!(spread > rounded::larger(least, rounded::mul(square, cancellation_limit)))) return -1;
    return rounded::mul(rounded::mul(variance, inverse_root(variance)), factor);
  }
  /// 1 over the standard deviation, of which the variance has a floor; 0 where squares overflow or underflow.
  [[nodiscard]] __device__ __forceinline__ float find_factor(float sum, float square) const {
    if (!(square >= rounded::mul(32.0f, least) && square <= FLT_MAX)) return 0;
    const float spread = rounded::sub(square, rounded::mul(sum, rounded::mul(sum, per_term)));
    return inverse_root(rounded::mul(rounded::larger(rounded::mul(square, cancellation_limit), spread), per_rest));
  }

private:
  /// 1 over the square root of a normal float, by Newton's steps from a guess by the bits.
  [[nodiscard]] __device__ __forceinline__ static float inverse_root(float x) {
    float inverse = ptx::bit_cast<float>(0x5f375a86u - (ptx::bit_cast<std::uint32_t>(x) >> 1));
    const float half = rounded::mul(x, 0.5f);
    SINQ_EACH (k, 3)
      inverse = rounded::mul(inverse, rounded::sub(1.5f, rounded::mul(rounded::mul(half, inverse), inverse)));
    return inverse;
  }
};

} // namespace sinq::cuda::kernels
