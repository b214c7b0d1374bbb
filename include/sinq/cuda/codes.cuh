#pragma once

#include "layout.hpp"
#include "ptx.cuh"

namespace sinq::cuda::kernels {

/// What pair() makes of a code: f16 holds code * 2^-24, the bits of a code being a denormal number; bfloat16 holds
/// code + 128 of up to 4 bits, which lie in the mantissa of 128, and codes of 8 bits as they are; a level is what it
/// is. So pair is exact and costs a shift and a mask, and the sums of a group make up for the rest.
template <code_form Form, class Float>
inline constexpr float pair_scale = std::is_same_v<Float, f16>&& Form != code_form::table4 ? 0x1p-24f : 1.0f;
template <code_form Form, class Float>
inline constexpr float pair_offset =
    std::is_same_v<Float, bf16>&& Form != code_form::table4&& Form != code_form::u8 ? 128.0f : 0.0f;

/// Table of both halves of a byte of codes: word [byte][lane], so that no two lanes want the same bank.
inline constexpr unsigned table_bytes = 256 * ptx::warp_lanes * 4;

template <class Float>
__device__ __forceinline__ void fill_table(Float type, std::uint32_t* table, const float* levels) {
  for (unsigned k = threadIdx.x; k < table_bytes / 16; k += blockDim.x) {
    const unsigned byte = k / 8;
    const std::uint32_t pair = ptx::from_floats(type, levels[byte % 16], levels[byte / 16]);
    reinterpret_cast<uint4*>(table)[k] = make_uint4(pair, pair, pair, pair);
  }
}

/// The codes that a lane owns in a block of 64 columns of a unit, in registers: see device_format.
template <code_form Form>
struct lane_codes {
  static constexpr unsigned bits = bits_of(Form);
  std::uint32_t word[bits];

  /// @param b  the block, 0 or 1
  __device__ __forceinline__ void load(const unsigned char* record, unsigned lane, unsigned b) {
    if constexpr (Form == code_form::u2 || Form == code_form::u3) {
      const uint2 rows = reinterpret_cast<const uint2*>(record)[b * 32 + lane];
      word[0] = rows.x;
      word[1] = rows.y;
      if constexpr (Form == code_form::u3)
        word[2] = reinterpret_cast<const std::uint32_t*>(record + 512)[b * 32 + lane];
    } else {
      SINQ_EACH (k, bits / 4) {
        const uint4 some = reinterpret_cast<const uint4*>(record)[(b * (bits / 4) + k) * 32 + lane];
        word[4 * k] = some.x;
        word[4 * k + 1] = some.y;
        word[4 * k + 2] = some.z;
        word[4 * k + 3] = some.w;
      }
    }
  }

  /// The inverse of load.
  __device__ __forceinline__ void store(unsigned char* record, unsigned lane, unsigned b) const {
    if constexpr (Form == code_form::u2 || Form == code_form::u3) {
      reinterpret_cast<uint2*>(record)[b * 32 + lane] = make_uint2(word[0], word[1]);
      if constexpr (Form == code_form::u3) reinterpret_cast<std::uint32_t*>(record + 512)[b * 32 + lane] = word[2];
    } else {
      SINQ_EACH (k, bits / 4)
        reinterpret_cast<uint4*>(record)[(b * (bits / 4) + k) * 32 + lane] =
            make_uint4(word[4 * k], word[4 * k + 1], word[4 * k + 2], word[4 * k + 3]);
    }
  }

  /// Adds a code to words that are 0 in its place: element e of pair n of row r, the inverse of pair.
  __device__ __forceinline__ void put(unsigned r, unsigned n, unsigned e, std::uint32_t code) {
    if constexpr (Form == code_form::table4) {
      word[r * 2 + n / 4] |= code << (8 * (n % 4) + 4 * e);
    } else if constexpr (Form == code_form::u3) {
      word[r] |= (code & 3u) << (2 * n + 16 * e);
      word[2] |= code >> 2 << (n + 8 * r + 16 * e);
    } else {
      constexpr unsigned word_pairs = 16 / bits;
      word[r * (8 / word_pairs) + n / word_pairs] |= code << (n % word_pairs * bits + 16 * e);
    }
  }

  /// Pair n of row r (0: g, 1: g + 8) as two 16-bit floats: see pair_scale.
  /// @param table  that of fill_table, from this lane on; of table4 only
  template <class Float>
  [[nodiscard]] __device__ __forceinline__ std::uint32_t pair(Float, const std::uint32_t* table, unsigned r,
                                                              unsigned n) const {
    constexpr std::uint32_t of_128 = std::is_same_v<Float, bf16> ? 0x43004300u : 0;
    if constexpr (Form == code_form::table4) {
      const std::uint32_t codes = word[r * 2 + n / 4];
      return table[(codes >> (8 * (n % 4)) & 0xffu) * ptx::warp_lanes];
    } else if constexpr (Form == code_form::u8) {
      const std::uint32_t codes = word[r * 4 + n / 2] >> (8 * (n % 2));
      if constexpr (std::is_same_v<Float, bf16>)
        return wide_pair(codes);
      else
        return codes & 0x00ff00ffu;
    } else if constexpr (Form == code_form::u3) {
      const unsigned from = n + 8 * r;
      const std::uint32_t high = from >= 2 ? word[2] >> (from - 2) : word[2] << (2 - from);
      const std::uint32_t low = ptx::and_or(word[r] >> (2 * n), 0x00030003u, of_128);
      return ptx::and_or(high, 0x00040004u, low);
    } else {
      constexpr unsigned word_pairs = 16 / bits;
      const std::uint32_t codes = word[r * (8 / word_pairs) + n / word_pairs] >> (n % word_pairs * bits);
      return ptx::and_or(codes, ((1u << bits) - 1) * 0x10001u, of_128);
    }
  }

private:
  /// Two bytes, at bits 0 and 16, as bfloat16: 7 bits in the mantissa of 128, which is taken off where bit 7 is clear.
  [[nodiscard]] __device__ __forceinline__ static std::uint32_t wide_pair(std::uint32_t codes) {
    const std::uint32_t sum = ptx::and_or(codes, 0x007f007fu, 0x43004300u);
    constexpr unsigned not_a_and_b = 0x0f & 0xcc;
    const std::uint32_t clear = ptx::lop3<not_a_and_b>(codes, 0x00800080u, 0);
    return ptx::subtract(bf16{}, sum, clear * 0x86u);
  }
};

} // namespace sinq::cuda::kernels
