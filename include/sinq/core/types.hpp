#pragma once

#include "config.hpp"
#include "dtype.hpp"
#include "finite.hpp"

#include <Eigen/Core>

#include <bit>
#include <cstdint>
#include <type_traits>

namespace sinq {

/// The 16-bit floats of the API are Eigen's, so that Eigen expressions and sinq views share memory.
/// Conversion from float rounds half to even; overflow gives infinity.
using float16 = Eigen::half;
using bfloat16 = Eigen::bfloat16;

/// Bytes without an owner's say: codes, file contents, tensor data.
using byte = std::byte;

/// 8-bit floats of the OCP FP8 specification, as checkpoints hold them.
struct float8_e4m3 {
  std::uint8_t bits;
};
struct float8_e5m2 {
  std::uint8_t bits;
};

/// Value of an OCP FP8 E4M3 number: 1.4.3, bias 7, no infinity, 0x7f and 0xff are NaN. Exact in float.
[[nodiscard]] inline float to_float(float8_e4m3 value) {
  const std::uint32_t sign = static_cast<std::uint32_t>(value.bits >> 7) << 31;
  const std::uint32_t exponent = (value.bits >> 3) & 15u;
  const std::uint32_t mantissa = value.bits & 7u;
  if (exponent == 15 && mantissa == 7) return std::bit_cast<float>(sign | 0x7fc00000u);
  if (exponent == 0) return (sign != 0 ? -1.0f : 1.0f) * static_cast<float>(mantissa) * 0x1p-9f;
  return std::bit_cast<float>(sign | ((exponent + 120u) << 23) | (mantissa << 20));
}

/// Value of an OCP FP8 E5M2 number: 1.5.2, bias 15, infinities and NaN as in IEEE 754. Exact in float.
[[nodiscard]] inline float to_float(float8_e5m2 value) {
  return static_cast<float>(Eigen::numext::bit_cast<float16>(static_cast<std::uint16_t>(value.bits << 8)));
}

[[nodiscard]] inline float to_float(float value) {
  return value;
}
[[nodiscard]] inline float to_float(float16 value) {
  return static_cast<float>(value);
}
[[nodiscard]] inline float to_float(bfloat16 value) {
  return static_cast<float>(value);
}
/// Rounds half to even; magnitudes above FLT_MAX become infinity, which every reader of weights refuses.
[[nodiscard]] inline float to_float(double value) {
  return static_cast<float>(value);
}

namespace detail {

template <class T>
struct dtype_of; // has a value for the element types that weights may have
template <>
struct dtype_of<double> : std::integral_constant<dtype, dtype::f64> {};
template <>
struct dtype_of<float> : std::integral_constant<dtype, dtype::f32> {};
template <>
struct dtype_of<float16> : std::integral_constant<dtype, dtype::f16> {};
template <>
struct dtype_of<bfloat16> : std::integral_constant<dtype, dtype::bf16> {};
template <>
struct dtype_of<float8_e4m3> : std::integral_constant<dtype, dtype::f8_e4m3> {};
template <>
struct dtype_of<float8_e5m2> : std::integral_constant<dtype, dtype::f8_e5m2> {};

} // namespace detail

/// An element type that weights may have in memory.
template <class T>
concept weight_element = requires {
  detail::dtype_of<T>::value;
};

/// The dtype of an element type, as in dtype_of<bfloat16> == dtype::bf16.
template <weight_element T>
inline constexpr dtype dtype_of = detail::dtype_of<T>::value;

} // namespace sinq
