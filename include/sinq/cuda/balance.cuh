#pragma once

#include "alternating.cuh"
#include "fit.cuh"
#include "statistics.cuh"

namespace sinq::cuda::kernels {

namespace detail {

/// Row scales and t of one tile by all threads of a block: sinkhorn_normalizer<float>::find_scales, with the same bits.
struct tile_balance {
  static constexpr unsigned most_cols = unit_cols;

  const quantize_args& a;
  staged_tile w;
  float* col_value; ///< [most_cols] in shared memory, as all that follows
  float* col_factor;
  float* col_std;
  float* col_scale; ///< the best so far
  double* board;    ///< of of_block

  [[nodiscard]] __device__ __forceinline__ tile_statistics statistics(float power) const {
    return {w, power, col_factor, col_std};
  }
  [[nodiscard]] __device__ __forceinline__ unsigned cols() const { return w.cols(); }
  template <class F>
  __device__ __forceinline__ void each_row(F f) const {
    for (unsigned i = threadIdx.x; i < w.rows(); i += blockDim.x) f(w.row_at(i));
  }
  template <class F>
  __device__ __forceinline__ void each_col(F f) const {
    for (unsigned j = threadIdx.x; j < cols(); j += blockDim.x) f(j);
  }

  __device__ __forceinline__ void start() const {
    each_row([&](std::size_t i) {
      a.row_value[i] = 1;
      a.row_factor[i] = 1;
      a.row_scale[i] = 1;
    });
    each_col([&](unsigned j) {
      col_value[j] = 1;
      col_factor[j] = 1;
      col_scale[j] = 1;
    });
    __syncthreads();
  }

  /// Calls f with every standard deviation that counts: those of a side of length 1 do not.
  template <class F>
  __device__ __forceinline__ void each_sigma(F f) const {
    if (cols() > 1) each_row([&](std::size_t i) { f(a.row_std[i]); });
    if (a.format.rows > 1) each_col([&](unsigned j) { f(col_std[j]); });
  }

  [[nodiscard]] __device__ __forceinline__ float imbalance() const {
    if (a.format.rows == 1 && cols() == 1) return 1;
    float low = FLT_MAX, high = 0;
    each_sigma([&](float sigma) {
      low = rounded::smaller(low, sigma);
      high = rounded::larger(high, sigma);
    });
    low = of_block(low, reinterpret_cast<float*>(board), take_smaller{});
    high = of_block(high, reinterpret_cast<float*>(board), take_larger{});
    return rounded::div(high, rounded::larger(static_cast<float>(1e-12), low));
  }

  [[nodiscard]] __device__ __forceinline__ float smallest_sigma() const {
    float least = a.balance.sigma_max;
    each_sigma([&](float sigma) {
      least = rounded::smaller(least, rounded::clamp(sigma, a.balance.sigma_min, a.balance.sigma_max));
    });
    return of_block(least, reinterpret_cast<float*>(board), take_smaller{});
  }

  /// The power of 2^8 that brings the mean binary exponent of the standard deviations into [-9, 7).
  [[nodiscard]] __device__ __forceinline__ float window() const {
    long long sum = 0, count = 0;
    const auto add = [&](float sigma) {
      if (!(sigma > 0)) return;
      sum += ilogbf(sigma);
      ++count;
    };
    if (cols() > 1)
      each_row([&](std::size_t i) { add(a.row_std[i]); });
    else
      each_col([&](unsigned j) { add(col_std[j]); });
    sum = of_block(sum, reinterpret_cast<long long*>(board), take_sum{});
    count = of_block(count, reinterpret_cast<long long*>(board), take_sum{});
    if (count == 0) return 1;
    long long mean = sum / count;
    if (mean * count > sum) --mean;
    const long long shifted = mean + 9;
    const long long periods = shifted >= 0 ? shifted / 16 : -((-shifted + 15) / 16);
    return ldexpf(1.0f, static_cast<int>(-8 * periods));
  }

  [[nodiscard]] __device__ __forceinline__ float stepped(float sigma, float value, float per_target) const {
    const balance_rule& by = a.balance;
    const float x = rounded::mul(rounded::clamp(sigma, by.sigma_min, by.sigma_max), per_target);
    return rounded::clamp(rounded::mul(rounded::clamp(x, by.ratio_min, by.ratio_max), value), by.scale_min,
                          by.scale_max);
  }

  /// Others may read the factors after the next barrier.
  __device__ __forceinline__ void step(float target) const {
    const float per_target = rounded::div(1.0f, target);
    if (a.format.rows > 1)
      each_col([&](unsigned j) {
        col_value[j] = stepped(col_std[j], col_value[j], per_target);
        col_factor[j] = rounded::div(1.0f, col_value[j]);
      });
    if (cols() > 1)
      each_row([&](std::size_t i) {
        a.row_value[i] = stepped(a.row_std[i], a.row_value[i], per_target);
        a.row_factor[i] = rounded::div(1.0f, a.row_value[i]);
      });
  }

  __device__ __forceinline__ void keep() const {
    each_row([&](std::size_t i) { a.row_scale[i] = a.row_value[i]; });
    each_col([&](unsigned j) { col_scale[j] = col_value[j]; });
  }

  /// The reference's rule.
  __device__ __forceinline__ void iterate() const {
    float power = 1;
    statistics(power).measure();
    if (a.balance.any_magnitude) power = window();
    if (power != 1) {
      __syncthreads();
      statistics(power).measure();
    }
    const float target = rounded::add(smallest_sigma(), a.balance.target_margin);
    float best = imbalance();
    for (int k = 0; k < a.balance.iterations; ++k) {
      if (k > 0) statistics(power).measure();
      const float current = imbalance();
      if (current <= best) {
        best = current;
        keep();
      } else if (a.balance.stop_when_worse) {
        break;
      }
      step(target);
    }
  }

  __device__ __forceinline__ void alternate() const {
    const alternating_pass pass{w, col_factor, col_std, col_scale, board};
    bool uneven = cols() > 1;
    for (int k = 0; uneven && k < a.balance.iterations; ++k) uneven = pass.run(k);
    each_row([&](std::size_t i) { a.row_scale[i] = rounded::div(1.0f, a.row_factor[i]); });
  }

  /// Leaves the scales and, as factors, their reciprocals.
  __device__ __forceinline__ void run() const {
    start();
    if (a.balance.balance) {
      if (a.balance.alternating)
        alternate();
      else
        iterate();
    }
    each_row([&](std::size_t i) { a.row_factor[i] = rounded::div(1.0f, a.row_scale[i]); });
    each_col([&](unsigned j) {
      col_factor[j] = rounded::div(1.0f, col_scale[j]);
      a.col_factor[w.tile * a.format.group_size + j] = col_factor[j];
    });
    __syncthreads();
  }
};

} // namespace detail

/// Finds row scales, t, scales and zero points of a tile, which is a group of columns of all rows, and the power of two
/// that its scales need to fit f16: sinkhorn_quantizer and pack do the same on the CPU.
/// Grid (groups), balance_threads. A template, so that programs of many units have it once.
template <class = void>
__global__ void __launch_bounds__(balance_threads, 1) balance_tiles(quantize_args a) {
  constexpr unsigned most_cols = detail::tile_balance::most_cols;
  SINQ_SHARED(float, col_value, most_cols);
  SINQ_SHARED(float, col_std, most_cols);
  SINQ_SHARED(float, col_factor, most_cols);
  SINQ_SHARED(float, col_scale, most_cols);
  SINQ_SHARED(double, board, balance_warps);
  SINQ_SHARED(float, staged, staged_rows* staged_stride);
  SINQ_SHARED(float, staged_factor, staged_rows);
  detail::look_at_weights(a, blockIdx.x, board);
  const detail::tile_balance tile{
      a, {a, blockIdx.x, staged, staged_factor}, col_value, col_factor, col_std, col_scale, board};
  tile.run();
  const int shift = detail::fit_tile(a, blockIdx.x, col_factor, board);
  detail::write_col_scale(a, blockIdx.x, col_scale, shift);
}

} // namespace sinq::cuda::kernels
