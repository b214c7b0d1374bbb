#pragma once

/// CUDA on the CPU, for tests: a kernel's source compiled by an ordinary compiler, each of its threads a fiber. Include
/// it before the kernels, and call them through sinq_emulation::launch. What CUDA leaves undefined is reported where
/// that is possible at all: a fault is thrown, or AddressSanitizer stops the program.

#include "arithmetic.hpp"
#include "half.hpp"
#include "runtime.hpp"
#include "tensor_core.hpp"
#include "vector_types.hpp"
#include "warp.hpp"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

#define threadIdx (sinq_emulation::detail::current_thread->index)
#define blockIdx (sinq_emulation::detail::current_block->index)
#define blockDim (sinq_emulation::detail::current_block->block)
#define gridDim (sinq_emulation::detail::current_block->grid)
