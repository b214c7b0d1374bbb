#pragma once

/// Version of the library, and the few macros that the headers need.

#include <bit>
#include <cassert>
#include <cstddef>
#include <limits>

#define SINQ_VERSION_MAJOR 0
#define SINQ_VERSION_MINOR 1
#define SINQ_VERSION_PATCH 0
#define SINQ_VERSION_STRING "0.1.0"

/// Checks a precondition inside a kernel; by default the standard assert, and free with NDEBUG.
/// Define it before including sinq to route failures elsewhere.
#ifndef SINQ_ASSERT
#define SINQ_ASSERT(condition) assert(condition)
#endif

/// Between these two, a product and the sum that it enters are rounded each, whatever the target's instructions and the
/// compiler's habits: results are the same on every machine. Functions there are defined, not merely called.
#if defined(__clang__)
#define SINQ_SEPARATE_ROUNDING_BEGIN _Pragma("STDC FP_CONTRACT OFF")
#define SINQ_SEPARATE_ROUNDING_END _Pragma("STDC FP_CONTRACT DEFAULT")
#elif defined(__GNUC__)
#define SINQ_SEPARATE_ROUNDING_BEGIN _Pragma("GCC push_options") _Pragma("GCC optimize(\"fp-contract=off\")")
#define SINQ_SEPARATE_ROUNDING_END _Pragma("GCC pop_options")
#else
#define SINQ_SEPARATE_ROUNDING_BEGIN
#define SINQ_SEPARATE_ROUNDING_END
#endif

namespace sinq {

static_assert(std::endian::native == std::endian::little, "sinq's files and packed codes are little-endian");
static_assert(std::numeric_limits<float>::is_iec559, "sinq needs IEEE 754 floats");
static_assert(sizeof(std::size_t) == 8, "sinq addresses tensors with 64-bit sizes");

} // namespace sinq
