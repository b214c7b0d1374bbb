#pragma once

#include "../panel.hpp"

#if SINQ_AMX

#include <immintrin.h>

#define SINQ_TARGET_AMX                                                                                                \
  __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,amx-tile,amx-bf16,amx-int8")))

namespace sinq::detail::amx {

/// Bytes of a tile: activations [16 tokens x 32 columns] of bf16 or [16 x 64] of bytes; weights
/// [16 pairs of columns][16 rows x 2] or [16 quads][16 x 4].
inline constexpr std::size_t tile_bytes = 1024;
/// With fewer tokens than this, dot products of bytes are sooner done than tiles.
inline constexpr std::size_t fewest_tokens = 9;
/// With fewer than this, tiles of bytes than those of bf16, unless there are scales for each 32 columns.
/// @param step  of bytes
[[nodiscard]] constexpr std::size_t fewest_bf16_tokens(std::size_t step) {
  return step == 64 ? tile_tokens + 1 : fewest_tokens;
}

/// The eight tile registers, each of up to 16 rows of up to 64 bytes.
struct hardware_tiles {
  /// Sets all tiles to 16 rows of 64 bytes.
  SINQ_TARGET_AMX SINQ_INLINE static void configure() {
    struct alignas(64) {
      std::uint8_t palette = 1, start_row = 0, reserved[14]{};
      std::uint16_t row_bytes[16]{64, 64, 64, 64, 64, 64, 64, 64};
      std::uint8_t rows[16]{16, 16, 16, 16, 16, 16, 16, 16};
    } const shapes;
    static_assert(sizeof shapes == 64);
    asm volatile("ldtilecfg %0" : : "m"(shapes));
  }
  SINQ_TARGET_AMX SINQ_INLINE static void release() { asm volatile("tilerelease"); }
  template <int Tile>
  SINQ_TARGET_AMX SINQ_INLINE static void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(Tile));
  }
  template <int Tile>
  SINQ_TARGET_AMX SINQ_INLINE static void load(const void* from) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(std::size_t{64}), "i"(Tile) : "memory");
  }
  /// The same of what is not needed again soon, past the first cache.
  template <int Tile>
  SINQ_TARGET_AMX SINQ_INLINE static void stream(const void* from) {
    asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(std::size_t{64}), "i"(Tile) : "memory");
  }
  template <int Tile>
  SINQ_TARGET_AMX SINQ_INLINE static void store(void* to) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(std::size_t{64}), "i"(Tile) : "memory");
  }
  /// sum[m][n] += sum_k a[m][2 k] b[k][2 n] + a[m][2 k + 1] b[k][2 n + 1], of bf16 in f32
  template <int Sum, int A, int B>
  SINQ_TARGET_AMX SINQ_INLINE static void multiply() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sum), "i"(A), "i"(B));
  }
  /// sum[m][n] += sum_k sum_{i < 4} a[m][4 k + i] b[k][4 n + i], of signed a and unsigned b in 32 bits
  template <int Sum, int A, int B>
  SINQ_TARGET_AMX SINQ_INLINE static void multiply_bytes() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sum), "i"(A), "i"(B));
  }
};

} // namespace sinq::detail::amx

#endif
