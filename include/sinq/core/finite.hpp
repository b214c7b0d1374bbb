#pragma once

#include <bit>
#include <cstdint>

namespace sinq {

/// True unless NaN or infinite; looks at the bits, so that it holds under -ffast-math too.
[[nodiscard]] inline bool is_finite(float value) {
  return (std::bit_cast<std::uint32_t>(value) & 0x7f800000u) != 0x7f800000u;
}
[[nodiscard]] inline bool is_finite(double value) {
  return (std::bit_cast<std::uint64_t>(value) & 0x7ff0000000000000u) != 0x7ff0000000000000u;
}

} // namespace sinq
