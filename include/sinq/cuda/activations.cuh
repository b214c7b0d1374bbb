#pragma once

#include "layout.hpp"
#include "ptx.cuh"

namespace sinq::cuda::kernels {

/// What prepare_activations reads and writes.
struct activation_args {
  device_format format;
  const std::uint16_t* x; ///< [tokens x cols], f16 or bf16
  std::size_t x_stride;   ///< elements from one token to the next
  unsigned tokens;
  bool aligned;      ///< every eight columns of x begin on 16 bytes
  const float* t;    ///< [units * 128]
  const float* unit; ///< [groups]
  unsigned char* to; ///< [units][token tiles] records of activation_bytes
};

/// Eight columns of a token, zeros outside of x.
__device__ __forceinline__ uint4 load_eight(const activation_args& a, unsigned token, unsigned column) {
  if (token >= a.tokens || column >= a.format.cols) return make_uint4(0, 0, 0, 0);
  const std::uint16_t* const from = a.x + token * a.x_stride + column;
  if (a.aligned && column + 8 <= a.format.cols) return __ldg(reinterpret_cast<const uint4*>(from));
  std::uint32_t word[4] = {0, 0, 0, 0};
  SINQ_EACH (k, 8)
    if (column + k < a.format.cols) word[k / 2] |= static_cast<std::uint32_t>(from[k]) << (16 * (k % 2));
  return make_uint4(word[0], word[1], word[2], word[3]);
}

/// x' = x t, a product in f32 rounded to the type of x, in the layout of activation_bytes, and the sums of each group.
/// Grid (units, token tiles), 128 threads: warp q has columns 32 q .. + 31 of the unit, lane 4 n + p token n.
/// Sums: eight columns in order, four lanes as a tree, then 32 columns after 32.
template <class Float>
__global__ void __launch_bounds__(128) prepare_activations(activation_args a) {
  SINQ_SHARED(float, sums, 4 * token_tile);
  ptx::let_next_kernel_begin();
  ptx::wait_for_previous_kernels();
  const unsigned lane = threadIdx.x % 32, q = threadIdx.x / 32, n = lane / 4, p = lane % 4;
  const unsigned column = blockIdx.x * unit_cols + 32 * q + 8 * p;
  const uint4 x = load_eight(a, blockIdx.y * token_tile + n, column);
  const float4* const t = reinterpret_cast<const float4*>(a.t + column);
  const float4 t0 = t[0], t1 = t[1];
  const std::uint32_t in[4] = {x.x, x.y, x.z, x.w};
  const float by[8] = {t0.x, t0.y, t0.z, t0.w, t1.x, t1.y, t1.z, t1.w};
  std::uint32_t out[4];
  float sum = 0;
  SINQ_EACH (k, 4) {
    const float2 pair = ptx::to_floats(Float{}, in[k]);
    out[k] = ptx::from_floats(Float{}, pair.x * by[2 * k], pair.y * by[2 * k + 1]);
    const float2 rounded = ptx::to_floats(Float{}, out[k]);
    sum += rounded.x;
    sum += rounded.y;
  }
  unsigned char* const record = a.to + (std::size_t{blockIdx.x} * gridDim.y + blockIdx.y) * activation_bytes(a.format);
  reinterpret_cast<uint4*>(record)[q * 32 + lane] = make_uint4(out[0], out[1], out[2], out[3]);
  sum += __shfl_xor_sync(ptx::all_lanes, sum, 1);
  sum += __shfl_xor_sync(ptx::all_lanes, sum, 2);
  if (p == 0) sums[q * token_tile + n] = sum;
  __syncthreads();
  const unsigned groups = a.format.unit_groups(), parts = 4 / groups;
  if (threadIdx.x < groups * token_tile) {
    const unsigned group = threadIdx.x / token_tile, token = threadIdx.x % token_tile;
    float all = 0;
    for (unsigned k = 0; k < parts; ++k) all += sums[(group * parts + k) * token_tile + token];
    reinterpret_cast<float*>(record + activation_sum_place)[threadIdx.x] = all;
  } else if (threadIdx.x >= 64 && threadIdx.x < 68) {
    const unsigned group = threadIdx.x - 64;
    reinterpret_cast<float*>(record + activation_unit_place(a.format))[group] =
        group < groups ? a.unit[blockIdx.x * groups + group] : 0.0f;
  }
}

} // namespace sinq::cuda::kernels
