#pragma once

/// CUDA's 16-bit floats: every result is the exact value rounded once, to nearest, ties to even. NaN becomes 0x7fff, as
/// on the device. Only what is called by name exists: no operators, no silent conversions.

#include "vector_types.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

/// A 16-bit float as its bits; Format tells binary16 from bfloat16.
template <class Format>
struct sinq_emulation_float16 {
  std::uint16_t bits;
};
template <class Format>
struct alignas(4) sinq_emulation_float16x2 {
  sinq_emulation_float16<Format> x;
  sinq_emulation_float16<Format> y;
};

namespace sinq_emulation {

struct binary16 {
  static constexpr int fraction_bits = 10;
  static constexpr int least_exponent = -14;
  static constexpr int largest_exponent = 15;
};
struct bfloat16 {
  static constexpr int fraction_bits = 7;
  static constexpr int least_exponent = -126;
  static constexpr int largest_exponent = 127;
};

[[nodiscard]] constexpr double power_of_two(int exponent) {
  return std::bit_cast<double>(static_cast<std::uint64_t>(exponent + 1023) << 52);
}

/// a + b with its last bit set if the sum is not exact (round to odd): rounding that again gives what rounding the
/// exact sum would give.
[[nodiscard]] inline double add_to_odd(double a, double b) {
  const double sum = a + b;
  const double of_b = sum - a;
  const double lost = (a - (sum - of_b)) + (b - of_b);
  if (!(lost != 0.0) || !std::isfinite(sum) || (std::bit_cast<std::uint64_t>(sum) & 1U) != 0) return sum;
  return std::nextafter(sum, lost > 0.0 ? std::numeric_limits<double>::infinity()
                                        : -std::numeric_limits<double>::infinity());
}

template <class Format>
[[nodiscard]] double to_double(sinq_emulation_float16<Format> value) {
  constexpr int fraction_bits = Format::fraction_bits;
  constexpr int top_exponent = Format::largest_exponent - Format::least_exponent + 2;
  constexpr int double_fraction_bits = 52;
  constexpr int double_bias = 1023;
  constexpr double least_step = power_of_two(Format::least_exponent - fraction_bits);
  const int fraction = value.bits & ((1 << fraction_bits) - 1);
  const int exponent = (value.bits & 0x7fff) >> fraction_bits;
  const bool negative = (value.bits & 0x8000) != 0;
  if (exponent == 0) return negative ? -(fraction * least_step) : fraction * least_step;
  const int wide = exponent == top_exponent ? 2 * double_bias + 1 : exponent - 1 + Format::least_exponent + double_bias;
  return std::bit_cast<double>(std::uint64_t{negative} << 63 |
                               static_cast<std::uint64_t>(wide) << double_fraction_bits |
                               static_cast<std::uint64_t>(fraction) << (double_fraction_bits - fraction_bits));
}

template <class Format>
[[nodiscard]] sinq_emulation_float16<Format> round_to(double value) {
  constexpr int fraction_bits = Format::fraction_bits;
  if (std::isnan(value)) return {0x7fff};
  const auto sign = static_cast<std::uint16_t>(std::signbit(value) ? 0x8000 : 0);
  const double magnitude = std::abs(value);
  const int exponent = magnitude == 0.0 || std::isinf(magnitude)
                           ? Format::least_exponent
                           : std::max(std::ilogb(magnitude), Format::least_exponent);
  const double steps = std::nearbyint(std::ldexp(magnitude, fraction_bits - exponent));
  constexpr std::uint16_t infinity = (Format::largest_exponent - Format::least_exponent + 2) << fraction_bits;
  if (exponent > Format::largest_exponent || std::isinf(magnitude))
    return {static_cast<std::uint16_t>(sign | infinity)};
  // A carry out of the fraction moves on into the exponent, and out of the largest exponent into infinity.
  const int bits = ((exponent - Format::least_exponent) << fraction_bits) + static_cast<int>(steps);
  return {static_cast<std::uint16_t>(sign | bits)};
}

} // namespace sinq_emulation

using __half = sinq_emulation_float16<sinq_emulation::binary16>;
using __half2 = sinq_emulation_float16x2<sinq_emulation::binary16>;
using __nv_bfloat16 = sinq_emulation_float16<sinq_emulation::bfloat16>;
using __nv_bfloat162 = sinq_emulation_float16x2<sinq_emulation::bfloat16>;

// Conversions, under the names of cuda_fp16.h and cuda_bf16.h.
inline __half __float2half(float a) {
  return sinq_emulation::round_to<sinq_emulation::binary16>(a);
}
inline __half __float2half_rn(float a) {
  return __float2half(a);
}
inline __half __double2half(double a) {
  return sinq_emulation::round_to<sinq_emulation::binary16>(a);
}
inline __half __int2half_rn(int a) {
  return sinq_emulation::round_to<sinq_emulation::binary16>(a);
}
inline float __half2float(__half a) {
  return static_cast<float>(sinq_emulation::to_double(a));
}
inline __half __ushort_as_half(unsigned short a) {
  return {a};
}
inline unsigned short __half_as_ushort(__half a) {
  return a.bits;
}
inline __half2 __halves2half2(__half a, __half b) {
  return {a, b};
}
inline __half2 __half2half2(__half a) {
  return {a, a};
}
inline __half2 __float2half2_rn(float a) {
  return __half2half2(__float2half(a));
}
inline __half2 __floats2half2_rn(float a, float b) {
  return {__float2half(a), __float2half(b)};
}
inline __half2 __float22half2_rn(float2 a) {
  return __floats2half2_rn(a.x, a.y);
}
inline float2 __half22float2(__half2 a) {
  return {__half2float(a.x), __half2float(a.y)};
}

inline __nv_bfloat16 __float2bfloat16(float a) {
  return sinq_emulation::round_to<sinq_emulation::bfloat16>(a);
}
inline __nv_bfloat16 __float2bfloat16_rn(float a) {
  return __float2bfloat16(a);
}
inline __nv_bfloat16 __double2bfloat16(double a) {
  return sinq_emulation::round_to<sinq_emulation::bfloat16>(a);
}
inline __nv_bfloat16 __int2bfloat16_rn(int a) {
  return sinq_emulation::round_to<sinq_emulation::bfloat16>(a);
}
inline float __bfloat162float(__nv_bfloat16 a) {
  return static_cast<float>(sinq_emulation::to_double(a));
}
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short a) {
  return {a};
}
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 a) {
  return a.bits;
}
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 a, __nv_bfloat16 b) {
  return {a, b};
}
inline __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 a) {
  return {a, a};
}
inline __nv_bfloat162 __float2bfloat162_rn(float a) {
  return __bfloat162bfloat162(__float2bfloat16(a));
}
inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) {
  return {__float2bfloat16(a), __float2bfloat16(b)};
}
inline __nv_bfloat162 __float22bfloat162_rn(float2 a) {
  return __floats2bfloat162_rn(a.x, a.y);
}
inline float2 __bfloat1622float2(__nv_bfloat162 a) {
  return {__bfloat162float(a.x), __bfloat162float(a.y)};
}

// What is called alike for both formats.
inline __half __low2half(__half2 a) {
  return a.x;
}
inline __half __high2half(__half2 a) {
  return a.y;
}
inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 a) {
  return a.x;
}
inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 a) {
  return a.y;
}
template <class Format>
float __low2float(sinq_emulation_float16x2<Format> a) {
  return static_cast<float>(sinq_emulation::to_double(a.x));
}
template <class Format>
float __high2float(sinq_emulation_float16x2<Format> a) {
  return static_cast<float>(sinq_emulation::to_double(a.y));
}
template <class Format>
sinq_emulation_float16<Format> __hadd(sinq_emulation_float16<Format> a, sinq_emulation_float16<Format> b) {
  return sinq_emulation::round_to<Format>(
      sinq_emulation::add_to_odd(sinq_emulation::to_double(a), sinq_emulation::to_double(b)));
}
template <class Format>
sinq_emulation_float16<Format> __hsub(sinq_emulation_float16<Format> a, sinq_emulation_float16<Format> b) {
  return sinq_emulation::round_to<Format>(
      sinq_emulation::add_to_odd(sinq_emulation::to_double(a), -sinq_emulation::to_double(b)));
}
template <class Format>
sinq_emulation_float16<Format> __hmul(sinq_emulation_float16<Format> a, sinq_emulation_float16<Format> b) {
  return sinq_emulation::round_to<Format>(sinq_emulation::to_double(a) * sinq_emulation::to_double(b));
}
template <class Format>
sinq_emulation_float16<Format> __hfma(sinq_emulation_float16<Format> a, sinq_emulation_float16<Format> b,
                                      sinq_emulation_float16<Format> c) {
  return sinq_emulation::round_to<Format>(sinq_emulation::add_to_odd(
      sinq_emulation::to_double(a) * sinq_emulation::to_double(b), sinq_emulation::to_double(c)));
}
template <class Format>
sinq_emulation_float16<Format> __hneg(sinq_emulation_float16<Format> a) {
  return {static_cast<std::uint16_t>(a.bits ^ 0x8000U)};
}
template <class Format>
sinq_emulation_float16<Format> __habs(sinq_emulation_float16<Format> a) {
  return {static_cast<std::uint16_t>(a.bits & 0x7fffU)};
}
template <class Pair>
Pair __hadd2(Pair a, Pair b) {
  return {__hadd(a.x, b.x), __hadd(a.y, b.y)};
}
template <class Pair>
Pair __hsub2(Pair a, Pair b) {
  return {__hsub(a.x, b.x), __hsub(a.y, b.y)};
}
template <class Pair>
Pair __hmul2(Pair a, Pair b) {
  return {__hmul(a.x, b.x), __hmul(a.y, b.y)};
}
template <class Pair>
Pair __hfma2(Pair a, Pair b, Pair c) {
  return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}
