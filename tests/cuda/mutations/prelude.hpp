#pragma once

/// What the programs here include and no fault touches: compiled once.

#include "cuda/emulation/emulation.hpp"
#include "support/catch.hpp"
#include "support/random_matrices.hpp"
#include "support/random_quantized.hpp"

#include <sinq/pack/dequantize.hpp>
#include <sinq/pack/pack.hpp>
#include <sinq/quant/quantize.hpp>

#include <cmath>
#include <functional>
#include <span>

// Compiled once, and better than the programs: see emulation.cpp.
namespace sinq_emulation::detail {
extern template void mma<binary16>(float (&)[4], const std::uint32_t (&)[4], const std::uint32_t (&)[2], const char*,
                                   const place&);
extern template void mma<bfloat16>(float (&)[4], const std::uint32_t (&)[4], const std::uint32_t (&)[2], const char*,
                                   const place&);
} // namespace sinq_emulation::detail
