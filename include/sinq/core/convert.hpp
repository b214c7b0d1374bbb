#pragma once

#include "error.hpp"
#include "types.hpp"
#include "wide.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <type_traits>

namespace sinq {

namespace detail {

template <class T>
void load_elements(const byte* from, std::span<float> to) {
  for (std::size_t i = 0; i < to.size(); ++i) {
    T value;
    std::memcpy(&value, from + i * sizeof(T), sizeof(T));
    to[i] = to_float(value);
  }
}

/// Floats from 16 bits each. A bfloat16 is the upper half of its float. Exponent and mantissa of an IEEE 754 half,
/// moved into place, are its value times 2^-112, denormals too; where there is an instruction for it, that is used.
template <class T, std::size_t W>
SINQ_INLINE void widen_halves(const vec<std::uint16_t, W>& halves, vec<float, W>& to) {
  vec<std::uint32_t, W> found;
  if constexpr (std::is_same_v<T, bfloat16>) {
    found = __builtin_convertvector(halves, vec<std::uint32_t, W>) << 16;
  } else if constexpr (W > 1 && SINQ_HALF_INSTRUCTION) {
#if SINQ_X86
    asm("{vcvtph2ps %1, %0|vcvtph2ps %0, %1}" : "=v"(to) : "v"(halves));
#elif defined(__aarch64__)
    asm("fcvtl %0.4s, %1.4h" : "=w"(to) : "w"(halves));
#endif
    return;
  } else {
    const vec<std::uint32_t, W> bits = __builtin_convertvector(halves, vec<std::uint32_t, W>);
    const vec<std::uint32_t, W> magnitude = (bits & 0x7fffu) << 13;
    vec<float, W> scaled;
    load(reinterpret_cast<const float*>(&magnitude), scaled);
    scaled *= 0x1p112f;
    load(reinterpret_cast<const std::uint32_t*>(&scaled), found);
    found |= (bits & 0x7c00u) == 0x7c00u ? vec<std::uint32_t, W>{} + 0x7f800000u : vec<std::uint32_t, W>{};
    found |= (bits & 0x8000u) << 16;
  }
  load(reinterpret_cast<const float*>(&found), to);
}

/// W stored values as floats, exactly. @tparam T  float, bfloat16 or float16
template <class T, std::size_t W>
SINQ_INLINE void load_vector(const byte* from, vec<float, W>& to) {
  if constexpr (std::is_same_v<T, float>) {
    load(from, to);
    return;
  } else {
    vec<std::uint16_t, W> halves;
    load(from, halves);
    widen_halves<T, W>(halves, to);
  }
}

/// Floats from any of these.
template <class T>
struct load_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const byte* from, float* to, std::size_t n) {
    vec<float, W> values;
    std::size_t i = 0;
    for (; i + W <= n; i += W) {
      load_vector<T, W>(from + sizeof(T) * i, values);
      store(values, to + i);
    }
    if (i < n) load_elements<T>(from + sizeof(T) * i, {to + i, n - i});
  }
};

/// Whether all of some floats are finite.
struct finite_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const float* from, std::size_t n, bool& finite) {
    constexpr std::uint32_t exponent = 0x7f800000u;
    vec<std::uint32_t, W> bits{};
    auto found = bits == exponent;
    std::size_t i = 0;
    for (; i + W <= n; i += W) {
      load(from + i, bits);
      found |= (bits & exponent) == exponent;
    }
    std::int32_t lanes[W];
    store(found, lanes);
    finite = true;
    for (const std::int32_t lane : lanes) finite &= lane == 0;
    for (; i < n; ++i) finite &= is_finite(from[i]);
  }
};

/// To BF16, half to even; NaN keeps its sign.
struct to_bfloat16_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const float* from, byte* to, std::size_t n) {
    vec<std::uint32_t, W> bits;
    std::size_t i = 0;
    for (; i + W <= n; i += W) {
      load(from + i, bits);
      round(bits);
      store(__builtin_convertvector(bits, vec<std::uint16_t, W>), to + 2 * i);
    }
    for (; i < n; ++i) {
      vec<std::uint32_t, 1> one;
      load(from + i, one);
      round(one);
      store(__builtin_convertvector(one, vec<std::uint16_t, 1>), to + 2 * i);
    }
  }

private:
  template <class Bits>
  SINQ_INLINE static void round(Bits& bits) {
    const Bits rounded = (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
    bits = (bits & 0x7fffffffu) > 0x7f800000u ? ((bits >> 16u) & 0x8000u) | 0x7fc0u : rounded;
  }
};

template <class T>
void store_elements(std::span<const float> from, byte* to) {
  for (std::size_t i = 0; i < from.size(); ++i) {
    const T value = static_cast<T>(from[i]);
    std::memcpy(to + i * sizeof(T), &value, sizeof(T));
  }
}

/// IEEE 754 halves from floats, half to even: a normal one is rounded in the bits, a denormal one by adding the number
/// whose last place is the step of denormals. NaN becomes the quiet one, as Eigen makes it without F16C.
struct to_float16_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const float* from, byte* to, std::size_t n) {
    constexpr std::uint32_t infinity = 0x7f800000u, overflow = 143u << 23, normal = 113u << 23, step = 126u << 23;
    vec<std::uint32_t, W> bits, small;
    vec<float, W> sum;
    std::size_t i = 0;
    for (; i + W <= n; i += W) {
      load(from + i, bits);
      const vec<std::uint32_t, W> size = bits & 0x7fffffffu;
      load(reinterpret_cast<const float*>(&size), sum);
      sum += 0.5f; // 2^-1, whose last place is 2^-24
      load(reinterpret_cast<const float*>(&sum), small);
      vec<std::uint32_t, W> half = (size + 0xfffu + (size >> 13 & 1u) - (112u << 23)) >> 13;
      half = size < normal ? small - step : half;
      half = size >= overflow
                 ? (size > infinity ? vec<std::uint32_t, W>{} + 0x7e00u : vec<std::uint32_t, W>{} + 0x7c00u)
                 : half;
      store(__builtin_convertvector(half | (bits >> 16 & 0x8000u), vec<std::uint16_t, W>), to + 2 * i);
    }
    if (i < n) store_elements<float16>({from + i, n - i}, to + 2 * i);
  }
};

/// The 8-bit float nearest to `value`, ties to the even code: a search in the 128 magnitudes, which grow with their
/// code. Magnitudes beyond the largest finite one saturate to it; NaN stays NaN.
template <class Float8>
[[nodiscard]] Float8 nearest_float8(float value, std::uint8_t largest) {
  const std::uint8_t sign = std::signbit(value) ? 0x80 : 0;
  if (value != value) return {static_cast<std::uint8_t>(sign | 0x7f)};
  const float magnitude = std::fabs(value);
  std::uint8_t low = 0;
  std::uint8_t high = largest;
  if (magnitude >= to_float(Float8{high})) return {static_cast<std::uint8_t>(sign | high)};
  while (high - low > 1) {
    const auto middle = static_cast<std::uint8_t>((low + high) / 2);
    (to_float(Float8{middle}) <= magnitude ? low : high) = middle;
  }
  const float below = magnitude - to_float(Float8{low});
  const float above = to_float(Float8{high}) - magnitude;
  const bool up = above < below || (above == below && low % 2 != 0);
  return {static_cast<std::uint8_t>(sign | (up ? high : low))};
}

} // namespace detail

/// Reads `to.size()` elements of a floating type from unaligned memory; exact but for F64, which rounds half to even.
/// @pre is_float(type)
inline void load_floats(const byte* from, dtype type, std::span<float> to) {
  SINQ_ASSERT(info(type).is_float);
  switch (type) {
  case dtype::f64: return detail::load_elements<double>(from, to);
  case dtype::f32:
    if (!to.empty()) std::memcpy(to.data(), from, to.size_bytes());
    return;
  case dtype::f16: return detail::run_wide<detail::load_loop<float16>>(from, to.data(), to.size());
  case dtype::bf16: return detail::run_wide<detail::load_loop<bfloat16>>(from, to.data(), to.size());
  case dtype::f8_e4m3: return detail::load_elements<float8_e4m3>(from, to);
  case dtype::f8_e5m2: return detail::load_elements<float8_e5m2>(from, to);
  default: return;
  }
}

/// Writes floats as elements of a floating type to unaligned memory, rounding half to even.
/// F16 and BF16 overflow to infinity; the 8-bit types saturate at their largest finite value (448 and 57344).
/// @pre is_float(type)
inline void store_floats(std::span<const float> from, dtype type, byte* to) {
  SINQ_ASSERT(info(type).is_float);
  switch (type) {
  case dtype::f64: return detail::store_elements<double>(from, to);
  case dtype::f32: return detail::store_elements<float>(from, to);
  case dtype::f16: return detail::run_wide<detail::to_float16_loop>(from.data(), to, from.size());
  case dtype::bf16: return detail::run_wide<detail::to_bfloat16_loop>(from.data(), to, from.size());
  case dtype::f8_e4m3:
    for (std::size_t i = 0; i < from.size(); ++i)
      to[i] = static_cast<byte>(detail::nearest_float8<float8_e4m3>(from[i], 0x7e).bits);
    return;
  case dtype::f8_e5m2:
    for (std::size_t i = 0; i < from.size(); ++i)
      to[i] = static_cast<byte>(detail::nearest_float8<float8_e5m2>(from[i], 0x7b).bits);
    return;
  default: return;
  }
}

/// Whether all of some floats are finite.
[[nodiscard]] inline bool all_finite(std::span<const float> values) {
  bool finite = true;
  detail::run_wide<detail::finite_loop>(values.data(), values.size(), finite);
  return finite;
}

namespace detail {

/// Value as that type stores it. @pre f16, bf16, f32 or f8_e4m3
[[nodiscard]] inline float as_stored(float value, dtype type) {
  switch (type) {
  case dtype::f16: return static_cast<float>(static_cast<float16>(value));
  case dtype::bf16: return static_cast<float>(static_cast<bfloat16>(value));
  case dtype::f8_e4m3: return to_float(nearest_float8<float8_e4m3>(value, 0x7e));
  default: SINQ_ASSERT(type == dtype::f32); return value;
  }
}

/// Magnitudes that a type stores at full precision.
struct storage_range {
  float least; ///< smallest normal number
  float most;  ///< largest power of two
};

[[nodiscard]] constexpr storage_range range_of(dtype type) {
  if (type == dtype::f8_e4m3) return {0x1p-6f, 0x1p8f};
  return type == dtype::f16 ? storage_range{0x1p-14f, 0x1p15f} : storage_range{0x1p-126f, 0x1p127f};
}

/// True if that type stores every value at full precision.
[[nodiscard]] inline bool fits(std::span<const float> values, dtype type) {
  const storage_range limits = range_of(type);
  bool fit = true; // no early end: a loop of vectors
  for (const float value : values) {
    const float magnitude = std::fabs(value);
    fit &= magnitude == 0 || (magnitude >= limits.least && magnitude <= limits.most);
  }
  return fit;
}

} // namespace detail

} // namespace sinq
