#pragma once

#include "layout.hpp"
#include "ptx.cuh"

namespace sinq::cuda::kernels {

/// 16-bit floats whose last bit has the weight that bit `offset` of a code's field needs: 2^(m - offset), m being the
/// bits of the mantissa. A field that is or-ed into the mantissa of this number is added to it.
[[nodiscard]] __device__ constexpr std::uint32_t field_base(f16, unsigned offset) {
  return ((25 - offset) << 10) * 0x10001u;
}
[[nodiscard]] __device__ constexpr std::uint32_t field_base(bf16, unsigned offset) {
  return ((134 - offset) << 7) * 0x10001u;
}
template <class Float>
inline constexpr unsigned mantissa_bits = std::is_same_v<Float, f16> ? 10 : 7;

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

/// The codes that a lane owns in a unit, in registers: see device_format.
template <code_form Form>
struct lane_codes {
  static constexpr unsigned bits = bits_of(Form);
  std::uint32_t word[2 * bits];

  __device__ __forceinline__ void load(const unsigned char* record, unsigned lane) {
    const uint4* const from = reinterpret_cast<const uint4*>(record) + lane;
    SINQ_UNROLL
    for (unsigned k = 0; k < bits / 2; ++k) {
      const uint4 some = from[32 * k];
      word[4 * k] = some.x;
      word[4 * k + 1] = some.y;
      word[4 * k + 2] = some.z;
      word[4 * k + 3] = some.w;
    }
    if constexpr (Form == code_form::u3) {
      const uint2 high = reinterpret_cast<const uint2*>(record + 512)[lane];
      word[4] = high.x;
      word[5] = high.y;
    }
  }

  /// The inverse of load.
  __device__ __forceinline__ void store(unsigned char* record, unsigned lane) const {
    uint4* const to = reinterpret_cast<uint4*>(record) + lane;
    SINQ_UNROLL
    for (unsigned k = 0; k < bits / 2; ++k)
      to[32 * k] = make_uint4(word[4 * k], word[4 * k + 1], word[4 * k + 2], word[4 * k + 3]);
    if constexpr (Form == code_form::u3) reinterpret_cast<uint2*>(record + 512)[lane] = make_uint2(word[4], word[5]);
  }

  /// Adds a code to words that are 0 in its place: element e of pair n of row r and block b, the inverse of pair.
  __device__ __forceinline__ void put(unsigned b, unsigned r, unsigned n, unsigned e, std::uint32_t code) {
    if constexpr (Form == code_form::table4) {
      word[b * 4 + r * 2 + n / 4] |= code << (8 * (n % 4) + 4 * e);
    } else {
      constexpr unsigned stride = Form == code_form::u3 ? 2 : bits;
      constexpr unsigned word_pairs = 16 / stride;
      const std::uint32_t low = Form == code_form::u3 ? code & 3u : code;
      word[(b * 2 + r) * (8 / word_pairs) + n / word_pairs] |= low << (n % word_pairs * stride + 16 * e);
      if constexpr (Form == code_form::u3) word[4 + b] |= code >> 2 << (n + 8 * r + 16 * e);
    }
  }

  /// Pair n of row r (0: g, 1: g + 8) and block b as two 16-bit floats: the codes themselves, exactly, or their levels.
  /// Bits of a word are or-ed into the mantissa of field_base, which is then taken off.
  /// @param table  that of fill_table, from this lane on; of table4 only
  template <class Float>
  [[nodiscard]] __device__ __forceinline__ std::uint32_t pair(Float type, const std::uint32_t* table, unsigned b,
                                                              unsigned r, unsigned n) const {
    if constexpr (Form == code_form::table4) {
      const std::uint32_t codes = word[b * 4 + r * 2 + n / 4];
      return table[(codes >> (8 * (n % 4)) & 0xffu) * ptx::warp_lanes];
    } else if constexpr (Form == code_form::u8 && std::is_same_v<Float, bf16>) {
      return wide_pair(word[(b * 2 + r) * 4 + n / 2] >> (8 * (n % 2)));
    } else {
      constexpr unsigned stride = Form == code_form::u3 ? 2 : bits;
      constexpr unsigned word_pairs = 16 / stride;
      constexpr unsigned together = (mantissa_bits<Float> - bits) / stride + 1; // fields that a mantissa reaches
      constexpr unsigned low_bits = Form == code_form::u3 ? 2 : bits;
      const unsigned field = n % word_pairs;
      const unsigned shift = field / together * together * stride, offset = field * stride - shift;
      const std::uint32_t base = field_base(type, offset);
      const std::uint32_t codes = word[(b * 2 + r) * (8 / word_pairs) + n / word_pairs] >> shift;
      std::uint32_t sum = ptx::and_or(codes, ((1u << low_bits) - 1) * 0x10001u << offset, base);
      if constexpr (Form == code_form::u3) {
        const unsigned from = n + 8 * r, to = offset + 2;
        const std::uint32_t high = from >= to ? word[4 + b] >> (from - to) : word[4 + b] << (to - from);
        sum = ptx::and_or(high, 0x10001u << to, sum);
      }
      return ptx::subtract(type, sum, base);
    }
  }

private:
  /// Two bytes, at bits 0 and 16, as bfloat16: 7 bits in the mantissa of 128, which is taken off where bit 7 is clear.
  [[nodiscard]] __device__ __forceinline__ static std::uint32_t wide_pair(std::uint32_t codes) {
    const std::uint32_t sum = ptx::and_or(codes, 0x007f007fu, field_base(bf16{}, 0));
    constexpr unsigned not_a_and_b = 0x0f & 0xcc;
    const std::uint32_t clear = ptx::lop3<not_a_and_b>(codes, 0x00800080u, 0);
    return ptx::subtract(bf16{}, sum, clear * 0x86u);
  }
};

} // namespace sinq::cuda::kernels
