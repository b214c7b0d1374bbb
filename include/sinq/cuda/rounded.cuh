#pragma once

#include "ptx.cuh"

/// Arithmetic that rounds each operation, whatever the compiler's habits: what quantizes gives the bytes of the CPU.
namespace sinq::cuda::rounded {

__device__ __forceinline__ float add(float a, float b) {
  return __fadd_rn(a, b);
}
__device__ __forceinline__ float sub(float a, float b) {
  return __fsub_rn(a, b);
}
__device__ __forceinline__ float mul(float a, float b) {
  return __fmul_rn(a, b);
}
__device__ __forceinline__ float div(float a, float b) {
  return __fdiv_rn(a, b);
}
/// a b + c, rounded once.
__device__ __forceinline__ float add_product(float a, float b, float c) {
  return __fmaf_rn(a, b, c);
}
/// Divides as fast_divisor of core/wide.hpp does: to the last bit, but for quotients that are very small.
class divisor {
public:
  __device__ __forceinline__ explicit divisor(float d) {
    minus_ = -d;
    inverse_ = __fdiv_rn(1.0f, d);
  }
  [[nodiscard]] __device__ __forceinline__ float operator()(float x) const {
    const float near = __fmul_rn(x, inverse_);
    return fabsf(near) < INFINITY ? __fmaf_rn(__fmaf_rn(near, minus_, x), inverse_, near) : near;
  }
  /// The product with the reciprocal, near the quotient, plus c, rounded once.
  [[nodiscard]] __device__ __forceinline__ float add_near(float x, float c) const { return __fmaf_rn(x, inverse_, c); }

private:
  float minus_, inverse_;
};
__device__ __forceinline__ double add(double a, double b) {
  return __dadd_rn(a, b);
}
__device__ __forceinline__ double sub(double a, double b) {
  return __dsub_rn(a, b);
}
__device__ __forceinline__ double mul(double a, double b) {
  return __dmul_rn(a, b);
}
__device__ __forceinline__ double div(double a, double b) {
  return __ddiv_rn(a, b);
}
__device__ __forceinline__ double root(double a) {
  return __dsqrt_rn(a);
}

template <class Real>
__device__ __forceinline__ Real smaller(Real a, Real b) {
  return b < a ? b : a;
}
template <class Real>
__device__ __forceinline__ Real larger(Real a, Real b) {
  return b > a ? b : a;
}
template <class Real>
__device__ __forceinline__ Real clamp(Real x, Real low, Real high) {
  x = x < low ? low : x;
  return high < x ? high : x;
}

} // namespace sinq::cuda::rounded
