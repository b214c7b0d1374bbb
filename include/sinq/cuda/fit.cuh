#pragma once

#include "block_reduce.cuh"
#include "quantize_args.cuh"

#include <cfloat>

namespace sinq::cuda::kernels::detail {

/// Up to four weights of a group that a lane holds: columns L, L + 32, L + 64 and L + 96 that are there.
struct group_weights {
  static constexpr unsigned parts = unit_cols / 32;
  float value[parts];

  /// Weights of row i times factors. @param col_factor  that of column j of the group
  template <class ColFactor>
  __device__ __forceinline__ void load(const quantize_args& a, unsigned tile, unsigned i, ColFactor col_factor) {
    SINQ_EACH (k, parts) {
      const unsigned j = threadIdx.x % 32 + 32 * k;
      value[k] = j < a.tile_cols(tile) ? column(a, tile, i, j, col_factor) : 0.0f;
    }
  }
  template <class ColFactor>
  [[nodiscard]] __device__ __forceinline__ static float column(const quantize_args& a, unsigned tile, unsigned i,
                                                               unsigned j, ColFactor col_factor) {
    return rounded::mul(a.at(i, std::size_t{tile} * a.format.group_size + j), col_factor(j));
  }
  __device__ __forceinline__ void multiply(float row_factor) {
    SINQ_EACH (k, parts) value[k] = rounded::mul(value[k], row_factor);
  }
  /// The smallest and the largest of all lanes.
  [[nodiscard]] __device__ __forceinline__ float2 range(unsigned cols) const {
    float low = INFINITY, high = -INFINITY;
    SINQ_EACH (k, parts)
      if (threadIdx.x % 32 + 32 * k < cols) {
        low = rounded::smaller(low, value[k]);
        high = rounded::larger(high, value[k]);
      }
    SINQ_UNROLL
    for (int flipped = 16; flipped > 0; flipped /= 2) {
      low = rounded::smaller(low, __shfl_xor_sync(ptx::all_lanes, low, flipped));
      high = rounded::larger(high, __shfl_xor_sync(ptx::all_lanes, high, flipped));
    }
    return make_float2(low, high);
  }
  /// The mean, in f64 in the 16 lanes of math/stats.hpp: L and L ^ 16 have those of CPU lane L % 16.
  [[nodiscard]] __device__ __forceinline__ float mean(unsigned cols) const {
    const bool lower = threadIdx.x % 32 < 16;
    double sum = 0;
    SINQ_EACH (k, parts) {
      const float other = __shfl_xor_sync(ptx::all_lanes, value[k], 16);
      sum = rounded::add(sum, static_cast<double>(lower ? value[k] : other));
      sum = rounded::add(sum, static_cast<double>(lower ? other : value[k]));
    }
    SINQ_UNROLL
    for (int flipped = 8; flipped > 0; flipped /= 2)
      sum = rounded::add(sum, __shfl_xor_sync(ptx::all_lanes, sum, flipped));
    return static_cast<float>(rounded::div(sum, static_cast<double>(cols)));
  }
  /// The mean of balanced weights from four sums of every fourth column, as lane_range_loop of quant/lane_codes.hpp
  /// finds it.
  template <class ColFactor>
  [[nodiscard]] __device__ __forceinline__ static float mean_in_lanes(const quantize_args& a, unsigned tile, unsigned i,
                                                                      float row_factor, ColFactor col_factor) {
    const unsigned cols = a.tile_cols(tile), lane = threadIdx.x % 32;
    float sum = 0;
    for (unsigned j = lane; lane < 4 && j < cols; j += 4) sum = rounded::add(sum, column(a, tile, i, j, col_factor));
    float part[4];
    SINQ_EACH (k, 4) part[k] = __shfl_sync(ptx::all_lanes, sum, static_cast<int>(k));
    const float all = rounded::add(rounded::add(part[0], part[1]), rounded::add(part[2], part[3]));
    return rounded::mul(rounded::div(all, static_cast<float>(cols)), row_factor);
  }
};

/// Scale and zero point of round to nearest: rtn_fit_loop.
[[nodiscard]] __device__ __forceinline__ float2 fit_uniform(const fit_rule& by, float2 range) {
  const float low = range.x, high = range.y, most = -low < high ? high : -low;
  if (by.symmetric) {
    const float zero = by.top * 0.5f;
    return make_float2(most == 0 ? 0.0f : rounded::larger(rounded::div(most, zero), FLT_MIN), zero);
  }
  if (most == 0) return make_float2(rounded::div(1e-4f, by.top), 0.0f);
  const float width = rounded::sub(high, low);
  float scale = width <= FLT_MAX ? rounded::div(width, by.top)
                                 : rounded::sub(rounded::div(high, by.top), rounded::div(low, by.top));
  scale = rounded::larger(rounded::larger(scale, rounded::mul(most, 1 / most_zero)), FLT_MIN);
  float zero = -rounded::div(low, scale);
  if (by.rounded)
    zero = rounded::sub(rounded::add(zero, 0x1.8p23f), 0x1.8p23f);
  else
    zero = ptx::to_float(f16{}, ptx::from_float(f16{}, zero)) + 0.0f;
  return make_float2(scale, zero);
}

/// Scale and zero point of a codebook: codebook_fit_loop.
[[nodiscard]] __device__ __forceinline__ float2 fit_codebook(const fit_rule& by, float2 range, float mean) {
  if (by.symmetric) mean = 0;
  const double middle = static_cast<double>(mean);
  const double above =
      rounded::div(rounded::sub(static_cast<double>(range.y), middle), static_cast<double>(by.top_level));
  const double below =
      rounded::div(rounded::sub(static_cast<double>(range.x), middle), static_cast<double>(by.bottom_level));
  const double step =
      rounded::clamp(above < below ? below : above, static_cast<double>(FLT_MIN), static_cast<double>(FLT_MAX));
  const float farthest = by.reach * most_zero / 8;
  const float scale = rounded::larger(static_cast<float>(step), rounded::div(mean < 0 ? -mean : mean, farthest));
  if (range.x == 0 && range.y == 0)
    return make_float2(!by.symmetric && by.levels[by.at_zero] == 0 ? 1e-4f : 0.0f, 0.0f);
  if (by.symmetric) return make_float2(scale, 0.0f);
  return make_float2(scale, ptx::to_float(f16{}, ptx::from_float(f16{}, rounded::div(-mean, scale))) + 0.0f);
}

/// The code of the level nearest to a place, x / scale + zero.
[[nodiscard]] __device__ __forceinline__ unsigned code_at(const fit_rule& by, float position) {
  if (!by.codebook) {
    float level = position < by.top ? position : by.top;
    level = rounded::sub(rounded::add(level > 0 ? level : 0.0f, 0x1p23f), 0x1p23f);
    return static_cast<unsigned>(level);
  }
  unsigned code = 0;
  SINQ_EACH (n, 15) code += position > by.borders[n] ? 1 : 0;
  return code;
}

/// Notes the largest magnitude of a tile, and its first weight that is not finite.
__device__ __forceinline__ void look_at_weights(const quantize_args& a, unsigned tile, double* board) {
  const unsigned cols = a.tile_cols(tile);
  unsigned long long first = ~0ull;
  std::uint32_t largest = 0;
  for (std::size_t n = threadIdx.x; n < std::size_t{a.format.rows} * cols; n += blockDim.x) {
    const std::size_t i = n / cols, j = std::size_t{tile} * a.format.group_size + n % cols;
    const std::uint32_t bits = ptx::bit_cast<std::uint32_t>(a.at(i, j)) & 0x7fffffffu;
    if (bits >= 0x7f800000u) first = rounded::smaller<unsigned long long>(first, i * a.format.cols + j);
    largest = rounded::larger(largest, bits);
  }
  first = of_block(first, reinterpret_cast<unsigned long long*>(board), take_smaller{});
  largest = of_block(largest, reinterpret_cast<std::uint32_t*>(board), take_larger{});
  if (threadIdx.x != 0) return;
  a.bad[tile] = first;
  a.largest[tile] = ptx::bit_cast<float>(largest);
}

/// The power of two that moves from the scales of a tile into t: scale_shift of pack/auxiliaries.hpp.
[[nodiscard]] __device__ __forceinline__ int shift_of(float least, float most) {
  if (most == 0 || (least >= least_scale && most <= most_scale)) return 0;
  const int down = ilogbf(most) + 1 - ilogbf(most_scale);
  if (most > most_scale) return down;
  const int up = ilogbf(least) - ilogbf(least_scale);
  return down > up ? down : up;
}

/// Finds scale and zero point of every row of a tile. @return the power of two that moves into t
__device__ __forceinline__ int fit_tile(const quantize_args& a, unsigned tile, const float* col_factor, double* board) {
  const unsigned cols = a.tile_cols(tile);
  const auto factor_of = [&](unsigned j) { return col_factor[j]; };
  float least = FLT_MAX, most = 0;
  for (unsigned i = threadIdx.x / 32; i < a.format.rows; i += blockDim.x / 32) {
    const std::size_t at = std::size_t{tile} * a.format.rows + i;
    const float row_factor = a.row_factor[at];
    group_weights x;
    x.load(a, tile, i, factor_of);
    x.multiply(row_factor);
    const float2 range = x.range(cols);
    float2 fit;
    if (!a.fit.codebook)
      fit = fit_uniform(a.fit, range);
    else if (a.fit.symmetric)
      fit = fit_codebook(a.fit, range, 0);
    else
      fit = fit_codebook(a.fit, range,
                         a.in_lanes(tile) ? group_weights::mean_in_lanes(a, tile, i, row_factor, factor_of)
                                          : x.mean(cols));
    if (threadIdx.x % 32 == 0) {
      a.group_scale[at] = fit.x;
      a.group_zero[at] = fit.y;
    }
    const float scale = rounded::mul(fit.x, a.row_scale[at]);
    const bool fits = scale >= least_scale && scale <= most_scale;
    if (scale == 0 || (!fits && range.x == 0 && range.y == 0)) continue;
    least = rounded::smaller(least, scale);
    most = rounded::larger(most, scale);
  }
  least = of_block(least, reinterpret_cast<float*>(board), take_smaller{});
  most = of_block(most, reinterpret_cast<float*>(board), take_larger{});
  const int shift = most == 0 ? 0 : shift_of(least, most);
  if (threadIdx.x == 0) a.shift[tile] = shift;
  return shift;
}

/// Writes t below 1 and the power of two that is left, as split_col_scale of cuda/convert.hpp does.
__device__ __forceinline__ void write_col_scale(const quantize_args& a, unsigned tile, const float* col_scale,
                                                int shift) {
  float most = 0;
  for (unsigned j = 0; j < a.tile_cols(tile); ++j) most = rounded::larger(most, ldexpf(col_scale[j], shift));
  const int power = ilogbf(most) + 1;
  for (unsigned j = threadIdx.x; j < a.format.group_size; j += blockDim.x)
    a.t[tile * a.format.group_size + j] = j < a.tile_cols(tile) ? ldexpf(ldexpf(col_scale[j], shift), -power) : 0.0f;
  if (threadIdx.x == 0) a.unit[tile] = ldexpf(1.0f, rounded::clamp(power, -126, 127));
}

} // namespace sinq::cuda::kernels::detail
