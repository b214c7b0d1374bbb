#pragma once

#include "staged_tile.cuh"

namespace sinq::cuda::kernels {

/// A pass of the alternating rule by all threads of a block, in the order of math/alternating.hpp and with its
/// numerics: the same bits as on the CPU.
///
///   row:     columns one after another
///   column:  rows of a lane one after another
struct alternating_pass {
  /// Sums of products and of their squares over a line.
  struct product_sums {
    float sum = 0, square = 0;

    __device__ __forceinline__ void add(float x, float factor) {
      const float y = rounded::mul(x, factor);
      sum = rounded::add(sum, y);
      square = rounded::add_product(y, y, square);
    }
  };

  const staged_tile& w;
  float* col_factor; ///< [tile_cols] in shared memory, as all that follows
  float* col_std;    ///< the same
  float* col_scale;  ///< the same
  double* board;     ///< of of_block

  /// 1 over the standard deviation of a row that is staged.
  [[nodiscard]] __device__ __forceinline__ float factor_of_row(unsigned r) const {
    product_sums of;
    for (unsigned j = 0; j < w.cols(); ++j) of.add(w.at(r, j), col_factor[j]);
    const float factor = spread_of_sums{w.cols()}.find_factor(of.sum, of.square);
    return factor > 0 ? factor : factor_in_double(r);
  }
  [[nodiscard]] __device__ __forceinline__ float factor_in_double(unsigned r) const {
    double sum = 0, square = 0;
    for (unsigned j = 0; j < w.cols(); ++j) {
      const double y = rounded::mul(static_cast<double>(w.at(r, j)), static_cast<double>(col_factor[j]));
      sum = rounded::add(sum, y);
      square = rounded::add(square, rounded::mul(y, y));
    }
    if (square == 0) return 1;
    const double terms = static_cast<double>(w.cols());
    const double spread =
        rounded::larger(rounded::sub(square, rounded::div(rounded::mul(sum, sum), terms)),
                        rounded::mul(square, static_cast<double>(spread_of_sums::cancellation_limit)));
    return static_cast<float>(rounded::clamp(rounded::root(rounded::div(terms - 1, spread)), 0x1p-126, 0x1p126));
  }

  /// Writes a.row_factor of the tile and, where rows have company, col_std, which all threads may read when it returns.
  /// @param backward  whether it takes the last rows first
  __device__ __forceinline__ void measure(bool backward) const {
    product_sums of[staged_tile::column_parts];
    const unsigned blocks = (w.rows() + staged_rows - 1) / staged_rows;
    for (unsigned n = 0; n < blocks; ++n) {
      const unsigned first = (backward ? blocks - 1 - n : n) * staged_rows;
      const unsigned count = w.count(first);
      w.stage(first, [&](unsigned i, unsigned j) { return w.weight(i, j); });
      __syncthreads();
      if (threadIdx.x < count) {
        w.factor[threadIdx.x] = factor_of_row(threadIdx.x);
        w.a.row_factor[w.row_at(first + threadIdx.x)] = w.factor[threadIdx.x];
      }
      __syncthreads();
      w.add_to_columns(count, of);
      __syncthreads();
    }
    if (w.rows() == 1) return;
    SINQ_EACH (part, staged_tile::column_parts) {
      of[part].sum = staged_tile::sum_of_lanes(of[part].sum);
      of[part].square = staged_tile::sum_of_lanes(of[part].square);
    }
    w.each_column([&](unsigned part, unsigned j) {
      const float factor = spread_of_sums{w.rows()}.find_factor(of[part].sum, of[part].square);
      col_std[j] = factor > 0 ? rounded::div(1.0f, factor) : 0.0f;
    });
    __syncthreads();
  }

  /// Combines what f makes of every column.
  template <class Combine, class F>
  [[nodiscard]] __device__ __forceinline__ float of_columns(float none, Combine combine, F f) const {
    float value = none;
    for (unsigned j = threadIdx.x; j < w.cols(); j += blockDim.x) value = combine(value, f(j));
    return of_block(value, reinterpret_cast<float*>(board), combine);
  }

  /// Evens the columns out, to scales from 1 to 2 on. @return  whether another pass would even out what is not yet even
  __device__ __forceinline__ bool move_columns() const {
    const auto sigma = [&](unsigned j) { return col_std[j]; };
    const auto moved = [&](unsigned j, float none) {
      return col_std[j] > 0 ? rounded::mul(col_std[j], col_factor[j]) : none;
    };
    const float widest = of_columns(0, take_larger{}, sigma);
    const float floor = rounded::mul(widest, sinq::detail::narrowest_column);
    const float least = rounded::larger(of_columns(FLT_MAX, take_smaller{}, sigma), floor);
    const float low = of_columns(INFINITY, take_smaller{}, [&](unsigned j) { return moved(j, INFINITY); });
    const float high = of_columns(0, take_larger{}, [&](unsigned j) { return moved(j, 0); });
    const float unit = widest > 0 ? ldexpf(1.0f, -ilogbf(least)) : 1.0f;
    for (unsigned j = threadIdx.x; j < w.cols(); j += blockDim.x) {
      col_scale[j] = widest > 0 ? rounded::mul(rounded::larger(col_std[j], floor), unit) : 1.0f;
      col_factor[j] = rounded::div(1.0f, col_scale[j]);
    }
    return high > rounded::mul(low, sinq::detail::even_enough);
  }

  /// @param turn  how many passes came before: every second one goes from the last rows to the first
  /// @return      whether another one is worth it. Others may read the scales of columns after the next barrier.
  __device__ __forceinline__ bool run(int turn) const {
    measure(turn % 2 == 1);
    return w.rows() > 1 && move_columns();
  }
};

} // namespace sinq::cuda::kernels
