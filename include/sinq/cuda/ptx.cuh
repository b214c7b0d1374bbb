#pragma once

/// The instructions that kernels are written in, and the only functions with two bodies: PTX for the device, and, when
/// an ordinary compiler runs the kernels' source (SINQ_CUDA_EMULATION names a header that does so), what they mean.

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
/// A static array in shared memory, `name[n]`, on a 16-byte boundary.
#define SINQ_SHARED(T, name, n) __shared__ alignas(16) T name[n]
/// The dynamic shared memory of the launch.
#define SINQ_DYNAMIC_SHARED(T, name)                                                                                   \
  extern __shared__ uint4 sinq_dynamic_shared[];                                                                       \
  T* const name = reinterpret_cast<T*>(sinq_dynamic_shared)
#define SINQ_UNROLL _Pragma("unroll")
#define SINQ_NO_UNROLL _Pragma("unroll 1")
#elif defined(SINQ_CUDA_EMULATION)
#include SINQ_CUDA_EMULATION
#define SINQ_UNROLL
#define SINQ_NO_UNROLL
#else
#error "sinq/cuda/*.cuh are compiled by nvcc or clang++ as CUDA, or with SINQ_CUDA_EMULATION"
#endif

/// A loop over k = 0 .. n - 1 that is unrolled.
#define SINQ_EACH(k, n) SINQ_UNROLL for (unsigned k = 0; k < (n); ++k)

namespace sinq::cuda {

/// Tags of the 16-bit floats that activations and tensor cores have.
struct f16 {};
struct bf16 {};

namespace ptx {

inline constexpr unsigned all_lanes = 0xffffffffu;
inline constexpr unsigned warp_lanes = 32;

template <class To, class From>
__device__ __forceinline__ To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

/// A function of three bits, applied to all 32: bit 4 a + 2 b + c of Table.
template <unsigned Table>
__device__ __forceinline__ std::uint32_t lop3(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
#if defined(__CUDA_ARCH__)
  std::uint32_t r;
  asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(r) : "r"(a), "r"(b), "r"(c), "n"(Table));
  return r;
#elif defined(SINQ_CUDA_EMULATION)
  return sinq_emulation::lop3<Table>(a, b, c);
#else
  return 0;
#endif
}

/// a & b | c
__device__ __forceinline__ std::uint32_t and_or(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  return lop3<(0xf0 & 0xcc) | 0xaa>(a, b, c);
}

__device__ __forceinline__ float to_float(f16, std::uint16_t bits) {
  return __half2float(__ushort_as_half(bits));
}
__device__ __forceinline__ float to_float(bf16, std::uint16_t bits) {
  return __uint_as_float(static_cast<unsigned>(bits) << 16);
}
/// Both halves of a word, the lower one first.
__device__ __forceinline__ float2 to_floats(f16, std::uint32_t pair) {
  return __half22float2(bit_cast<__half2>(pair));
}
__device__ __forceinline__ float2 to_floats(bf16, std::uint32_t pair) {
  return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}
/// To nearest, ties to even.
__device__ __forceinline__ std::uint16_t from_float(f16, float value) {
  return __half_as_ushort(__float2half_rn(value));
}
__device__ __forceinline__ std::uint16_t from_float(bf16, float value) {
  return __bfloat16_as_ushort(__float2bfloat16_rn(value));
}
template <class Float>
__device__ __forceinline__ std::uint32_t from_floats(Float type, float low, float high) {
  return from_float(type, low) | static_cast<std::uint32_t>(from_float(type, high)) << 16;
}

/// a - b for both halves.
__device__ __forceinline__ std::uint32_t subtract(f16, std::uint32_t a, std::uint32_t b) {
  return bit_cast<std::uint32_t>(__hsub2(bit_cast<__half2>(a), bit_cast<__half2>(b)));
}
/// As one rounding of a * 1 - b: all processors with arithmetic on bfloat16 have this, not all have a difference.
__device__ __forceinline__ std::uint32_t subtract(bf16, std::uint32_t a, std::uint32_t b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  const float2 from = to_floats(bf16{}, a), less = to_floats(bf16{}, b);
  return from_floats(bf16{}, from.x - less.x, from.y - less.y);
#else
  constexpr std::uint32_t ones = 0x3f803f80u, signs = 0x80008000u;
  return bit_cast<std::uint32_t>(
      __hfma2(bit_cast<__nv_bfloat162>(a), bit_cast<__nv_bfloat162>(ones), bit_cast<__nv_bfloat162>(b ^ signs)));
#endif
}

/// d = a b + c on the tensor cores; with g = lane / 4 and p = lane % 4, a word holds two neighbours, the lower one
/// first:
///   A 16 x 16   a[0] row g, columns 2p, 2p + 1     a[1] row g + 8     a[2], a[3] the same, columns 2p + 8, 2p + 9
///   B 16 x 8    b0 rows 2p, 2p + 1, column g       b1 rows 2p + 8, 2p + 9
///   C, D 16 x 8 d[0], d[1] row g, columns 2p, 2p + 1    d[2], d[3] row g + 8
/// Source: PTX ISA, "Matrix Fragments for mma.m16n8k16".
template <class Float>
__device__ __forceinline__ void mma_m16n8k16(Float, float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                             std::uint32_t b1, const float (&c)[4]) {
#if defined(__CUDA_ARCH__)
#if __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<Float, f16>)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
#else
  __trap();
#endif
#elif defined(SINQ_CUDA_EMULATION)
  const std::uint32_t b[2] = {b0, b1};
  float sum[4] = {c[0], c[1], c[2], c[3]};
  if constexpr (std::is_same_v<Float, f16>)
    sinq_emulation::mma_m16n8k16_f16(sum, a, b);
  else
    sinq_emulation::mma_m16n8k16_bf16(sum, a, b);
  for (int i = 0; i < 4; ++i) d[i] = sum[i];
#endif
}

/// Starts to copy 16 bytes from global to shared memory, past the first cache; zeros, and nothing is read, unless `in`.
__device__ __forceinline__ void copy_async16(void* shared, const void* global, bool in = true) {
#if defined(__CUDA_ARCH__)
#if __CUDA_ARCH__ >= 800
  const auto to = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(in ? 16 : 0) : "memory");
#else
  *static_cast<uint4*>(shared) = in ? *static_cast<const uint4*>(global) : make_uint4(0, 0, 0, 0);
#endif
#elif defined(SINQ_CUDA_EMULATION)
  sinq_emulation::cp_async<16>(shared, global, in);
#endif
}
/// Closes this thread's group of copies.
__device__ __forceinline__ void copy_async_commit() {
#if defined(__CUDA_ARCH__)
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
#elif defined(SINQ_CUDA_EMULATION)
  sinq_emulation::cp_async_commit();
#endif
}
/// Waits until no more than Pending of this thread's last groups are under way.
template <int Pending>
__device__ __forceinline__ void copy_async_wait() {
#if defined(__CUDA_ARCH__)
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#endif
#elif defined(SINQ_CUDA_EMULATION)
  sinq_emulation::cp_async_wait<Pending>();
#endif
}

/// Waits for the kernels before this one in the stream, where this one was launched without waiting for them.
__device__ __forceinline__ void wait_for_previous_kernels() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/// Lets the next kernel begin, if it was launched so that it may.
__device__ __forceinline__ void let_next_kernel_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

} // namespace ptx
} // namespace sinq::cuda
