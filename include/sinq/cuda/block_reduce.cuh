#pragma once

#include "rounded.cuh"

namespace sinq::cuda::kernels {

/// Threads of a block of the kernels that balance.
inline constexpr unsigned balance_threads = 512, balance_warps = balance_threads / 32;

/// Combines a value of every thread of a block, and gives all of them the result. Any order will do: `combine` is a
/// minimum, a maximum, or a sum of integers.
/// @param board  [balance_warps] in shared memory; free again after the next barrier
template <class T, class Combine>
__device__ __forceinline__ T of_block(T value, T* board, Combine combine) {
  SINQ_UNROLL
  for (int flipped = 16; flipped > 0; flipped /= 2)
    value = combine(value, __shfl_xor_sync(ptx::all_lanes, value, flipped));
  __syncthreads();
  if (threadIdx.x % 32 == 0) board[threadIdx.x / 32] = value;
  __syncthreads();
  value = board[0];
  for (unsigned w = 1; w < blockDim.x / 32; ++w) value = combine(value, board[w]);
  return value;
}

struct take_smaller {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return rounded::smaller(a, b);
  }
};
struct take_larger {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return rounded::larger(a, b);
  }
};
struct take_sum {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};

} // namespace sinq::cuda::kernels
