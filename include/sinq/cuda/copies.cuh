#pragma once

#include "outputs.cuh"

namespace sinq::cuda::kernels {

/// Starts to copy one record of weights to shared memory, by a warp.
template <code_form Form, unsigned Groups>
__device__ __forceinline__ void copy_record(unsigned char* to, const unsigned char* from, bool in) {
  constexpr unsigned rounds = bits_of(Form) / 2;
  constexpr unsigned rest = unit_shape<Form, Groups>::record_bytes / 16 - rounds * 32;
  static_assert(rest <= 32);
  const unsigned at = threadIdx.x % 32 * 16;
  SINQ_EACH (k, rounds) ptx::copy_async16(to + k * 512 + at, from + k * 512 + at, in);
  if (threadIdx.x % 32 < rest) ptx::copy_async16(to + rounds * 512 + at, from + rounds * 512 + at, in);
}

/// Waits until no more than `pending` groups of copies of this thread are under way. @pre pending <= 3
__device__ __forceinline__ void wait_for_copies(unsigned pending) {
  switch (pending) {
  case 0: return ptx::copy_async_wait<0>();
  case 1: return ptx::copy_async_wait<1>();
  case 2: return ptx::copy_async_wait<2>();
  default: return ptx::copy_async_wait<3>();
  }
}

/// Calls f with the number of groups of a unit as a constant: 1, 2 or 4.
template <class F>
__device__ __forceinline__ void with_groups(unsigned groups, F f) {
  if (groups == 1)
    f(std::integral_constant<unsigned, 1>{});
  else if (groups == 2)
    f(std::integral_constant<unsigned, 2>{});
  else
    f(std::integral_constant<unsigned, 4>{});
}

} // namespace sinq::cuda::kernels
