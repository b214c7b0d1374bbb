#pragma once

/// CUDA's arithmetic on ordinary numbers that the standard library lacks. Compiled with -ffp-contract=off, a product
/// and the sum that it enters are rounded each.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

using std::abs;
using std::exp;
using std::fabs;
using std::fma;
using std::isfinite;
using std::isinf;
using std::isnan;
using std::log;
using std::memcpy;
using std::sqrt;

inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline float __fsub_rn(float a, float b) {
  return a - b;
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float __fdiv_rn(float a, float b) {
  return a / b;
}
inline float __fmaf_rn(float a, float b, float c) {
  return std::fma(a, b, c);
}
inline float __fsqrt_rn(float a) {
  return std::sqrt(a);
}
inline float __frcp_rn(float a) {
  return 1.0f / a;
}
inline double __dadd_rn(double a, double b) {
  return a + b;
}
inline double __dsub_rn(double a, double b) {
  return a - b;
}
inline double __dmul_rn(double a, double b) {
  return a * b;
}
inline double __ddiv_rn(double a, double b) {
  return a / b;
}
inline double __dsqrt_rn(double a) {
  return std::sqrt(a);
}
inline double __fma_rn(double a, double b, double c) {
  return std::fma(a, b, c);
}
inline float __expf(float a) {
  return std::exp(a);
}
inline float __logf(float a) {
  return std::log(a);
}
inline float __fdividef(float a, float b) {
  return a / b;
}
inline float rsqrtf(float a) {
  return 1.0f / std::sqrt(a);
}
inline float __saturatef(float a) {
  return a > 1.0f ? 1.0f : a > 0.0f ? a : 0.0f;
}

inline float __double2float_rn(double a) {
  return static_cast<float>(a);
}
inline float __int2float_rn(int a) {
  return static_cast<float>(a);
}
inline float __uint2float_rn(unsigned a) {
  return static_cast<float>(a);
}
/// What lies outside of the range becomes its end, NaN becomes 0, as on the device.
inline int __float2int_rn(float a) {
  if (std::isnan(a)) return 0;
  if (a >= 0x1p31f) return 0x7fffffff;
  if (a <= -0x1p31f) return -0x7fffffff - 1;
  return static_cast<int>(std::nearbyint(a));
}
inline unsigned __float2uint_rn(float a) {
  if (std::isnan(a) || a <= 0.0f) return 0;
  return a >= 0x1p32f ? 0xffffffffU : static_cast<unsigned>(std::nearbyint(a));
}

inline unsigned __float_as_uint(float a) {
  return std::bit_cast<unsigned>(a);
}
inline float __uint_as_float(unsigned a) {
  return std::bit_cast<float>(a);
}
inline int __float_as_int(float a) {
  return std::bit_cast<int>(a);
}
inline float __int_as_float(int a) {
  return std::bit_cast<float>(a);
}

inline int __popc(unsigned a) {
  return std::popcount(a);
}
inline int __clz(int a) {
  return std::countl_zero(static_cast<unsigned>(a));
}
inline int __ffs(int a) {
  return __builtin_ffs(a);
}
inline unsigned __brev(unsigned a) {
  unsigned reversed = 0;
  for (int k = 0; k < 32; ++k) reversed |= (a >> k & 1U) << (31 - k);
  return reversed;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>(((std::uint64_t{high} << 32 | low) << (shift & 31U)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((std::uint64_t{high} << 32 | low) >> (shift & 31U));
}
/// Byte k of the result is the byte of {b, a} that hexadecimal digit k of the selector names; with its bit 3 set, the
/// sign of that byte eight times.
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const std::uint64_t bytes = std::uint64_t{b} << 32 | a;
  unsigned result = 0;
  for (unsigned k = 0; k < 4; ++k) {
    const unsigned digit = selector >> (4 * k) & 0xfU;
    const auto byte = static_cast<unsigned>(bytes >> (8 * (digit & 7U)) & 0xffU);
    result |= ((digit & 8U) == 0 ? byte : (byte & 0x80U) != 0 ? 0xffU : 0U) << (8 * k);
  }
  return result;
}

inline int min(int a, int b) {
  return a < b ? a : b;
}
inline int max(int a, int b) {
  return a > b ? a : b;
}
inline unsigned min(unsigned a, unsigned b) {
  return a < b ? a : b;
}
inline unsigned max(unsigned a, unsigned b) {
  return a > b ? a : b;
}
inline float min(float a, float b) {
  return std::fmin(a, b);
}
inline float max(float a, float b) {
  return std::fmax(a, b);
}

// Loads and stores with a hint to the caches.
template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
template <class T>
T __ldca(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, T value) {
  *p = value;
}
template <class T>
void __stcg(T* p, T value) {
  *p = value;
}
