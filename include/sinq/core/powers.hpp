#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

/// Powers of two by their bits: what std::ldexp and std::ilogb do, without a call.
namespace sinq::detail {

/// 2^k. @pre -126 <= k <= 127
[[nodiscard]] constexpr float power_of_two(int k) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(k + 127) << 23);
}

/// std::ldexp(value, k)
[[nodiscard]] inline float times_power_of_two(float value, int k) {
  return k >= -126 && k <= 127 ? value * power_of_two(k) : std::ldexp(value, k);
}

/// std::ilogb(value). @pre value is finite and not 0
[[nodiscard]] inline int exponent_of(float value) {
  const auto biased = static_cast<int>(std::bit_cast<std::uint32_t>(value) >> 23 & 0xffu);
  return biased != 0 ? biased - 127 : std::ilogb(value);
}

/// log2 x, linear between powers of two. @pre x > 0, a normal number
[[nodiscard]] inline double near_log2(double x) {
  const auto bits = std::bit_cast<std::uint64_t>(x);
  const double mantissa = std::bit_cast<double>((bits & 0x000fffffffffffffu) | 0x3ff0000000000000u);
  return static_cast<double>(static_cast<int>(bits >> 52) - 1023) + (mantissa - 1);
}
/// Its inverse.
[[nodiscard]] inline double near_exp2(double y) {
  return std::ldexp(1 + (y - std::floor(y)), static_cast<int>(std::floor(y)));
}

} // namespace sinq::detail
