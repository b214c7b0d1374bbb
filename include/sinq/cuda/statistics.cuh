#pragma once

#include "staged_tile.cuh"

namespace sinq::cuda::kernels {

/// Rows that are added up before they enter the sums of a column: most_height of math/column_tile.hpp.
inline constexpr unsigned chunk_rows = 512;

/// Standard deviations of the rows and columns of a tile, A[i][j] = w[i][j] * col_factor[j] * row_factor[i], by all
/// threads of a block, in the order of math/tile_spread.hpp and with its numerics: the same bits as on the CPU.
///
///   row:     64 columns one after another, then these blocks of columns
///   column:  rows of a lane in a chunk of 512, then chunks
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

  const staged_tile& w;
  float power;             ///< weights are seen times this, twice
  const float* col_factor; ///< [tile_cols] in shared memory, as all that follows
  float* col_std;          ///< the same

  [[nodiscard]] __device__ __forceinline__ float weight(unsigned i, unsigned j) const {
    return rounded::mul(rounded::mul(w.weight(i, j), power), power);
  }

  /// The standard deviation of n terms x, times a factor, from their sums, or in two passes where these may be wrong.
  /// @param get  x of term k
  template <class Get>
  [[nodiscard]] __device__ __forceinline__ static float stddev(unsigned n, const weighed_sums& of, float factor,
                                                               Get get) {
    if (n <= 1) return 0;
    const float sigma = spread_of_sums{n}.find(of.all, of.all_square, factor);
    if (sigma >= 0) return sigma;
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

  /// Finds the standard deviation of a row that is staged.
  __device__ __forceinline__ void measure_row(unsigned first, unsigned r) const {
    weighed_sums of;
    for (unsigned j = 0; j < w.cols(); ++j) {
      of.add(w.at(r, j), col_factor[j]);
      if (j % 64 == 63 || j + 1 == w.cols()) of.end_part();
    }
    w.a.row_std[w.row_at(first + r)] =
        stddev(w.cols(), of, w.factor[r], [&](unsigned j) { return rounded::mul(w.at(r, j), col_factor[j]); });
  }

  /// Writes a.row_std of the tile, and col_std; all threads may read them when it returns.
  __device__ __forceinline__ void measure() const {
    const unsigned rows = w.rows();
    weighed_sums of[staged_tile::column_parts];
    for (unsigned first = 0; first < rows; first += staged_rows) {
      const unsigned count = w.count(first);
      w.stage(first, [&](unsigned i, unsigned j) { return weight(i, j); });
      if (threadIdx.x < count) w.factor[threadIdx.x] = w.a.row_factor[w.row_at(first + threadIdx.x)];
      __syncthreads();
      if (threadIdx.x < count) measure_row(first, threadIdx.x);
      w.add_to_columns(count, of);
      SINQ_EACH (part, staged_tile::column_parts)
        if ((first + staged_rows) % chunk_rows == 0 || first + count == rows) of[part].end_part();
      __syncthreads();
    }
    SINQ_EACH (part, staged_tile::column_parts) {
      of[part].all = staged_tile::sum_of_lanes(of[part].all);
      of[part].all_square = staged_tile::sum_of_lanes(of[part].all_square);
    }
    w.each_column([&](unsigned part, unsigned j) {
      col_std[j] = stddev(rows, of[part], col_factor[j],
                          [&](unsigned i) { return rounded::mul(weight(i, j), w.a.row_factor[w.row_at(i)]); });
    });
    __syncthreads();
  }
};

} // namespace sinq::cuda::kernels
