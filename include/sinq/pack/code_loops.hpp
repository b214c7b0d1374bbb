#pragma once

#include "../core/format.hpp"
#include "../core/matrix_view.hpp"
#include "../core/types.hpp"
#include "../core/wide.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace sinq::detail {

/// Codes of `Bits` bits, eight to a word: one a byte in memory, side by side in b bytes when packed.
template <int Bits>
struct code_words {
  static constexpr bool has_type = Bits == 2 || Bits == 4; // a byte is of whole codes, 8 packed codes an integer
  using packed = std::conditional_t<Bits == 2, std::uint16_t, std::uint32_t>;
  using of_byte = std::conditional_t<Bits == 2, std::uint32_t, std::uint16_t>; // its codes before they are joined

  /// 8 codes, one a byte, side by side in 8 b bits: neighbours are joined, then pairs, then fours.
  template <class Words>
  SINQ_INLINE static void join(Words& codes) {
    codes = (codes & 0x00ff00ff00ff00ffu) | (codes & 0xff00ff00ff00ff00u) >> (8 - Bits);
    codes = (codes & 0x0000ffff0000ffffu) | (codes & 0xffff0000ffff0000u) >> (16 - 2 * Bits);
    codes = (codes & 0x00000000ffffffffu) | (codes & 0xffffffff00000000u) >> (32 - 4 * Bits);
  }
  /// The codes of a byte, one a byte, joined in the lowest of these; the others are not said.
  template <class Words>
  SINQ_INLINE static void join_byte(Words& codes) {
    if constexpr (Bits == 2) codes |= codes >> 6;
    codes |= codes >> (Bits == 2 ? 12 : 4);
  }
  /// The inverse of join.
  template <class Words>
  SINQ_INLINE static void part(Words& codes) {
    constexpr std::uint64_t one = max_code(Bits) * 0x0001000100010001u;
    constexpr std::uint64_t two = ((std::uint64_t{1} << 2 * Bits) - 1) * 0x0000000100000001u;
    constexpr std::uint64_t four = (std::uint64_t{1} << 4 * Bits) - 1;
    codes = (codes & four) | (codes >> 4 * Bits & four) << 32;
    codes = (codes & two) | (codes >> 2 * Bits & two) << 16;
    codes = (codes & one) | (codes >> Bits & one) << 8;
  }
};

/// Packs some rows of codes.
template <int Bits>
struct pack_loop {
  /// @param row_bytes  of a packed row, ceil(cols b / 8) or more: the rest is zeros
  /// @param stride     bytes from one packed row to the next
  template <std::size_t W>
  SINQ_INLINE static void run(const matrix_view<const std::uint8_t>& codes, byte* to, std::size_t row_bytes,
                              std::size_t stride) {
    for (std::size_t i = 0; i < codes.rows(); ++i) {
      fetch_ahead(to + (i + codes.rows()) * stride, row_bytes); // where codes will go next
      pack<(W < 2 ? 1 : W / 2)>(codes.data() + i * codes.stride(), codes.cols(), to + i * stride, row_bytes);
    }
  }

private:
  template <std::size_t N>
  SINQ_INLINE static void pack(const std::uint8_t* codes, std::size_t count, byte* to, std::size_t bytes) {
    std::size_t j = 0;
    for (; j + 8 * N <= count; j += 8 * N, to += N * Bits, bytes -= N * Bits)
      if (bytes >= N * Bits + 8)
        write<N, true>(codes + j, to);
      else
        write<N, false>(codes + j, to);
    for (; j < count; j += 8) {
      std::uint64_t word = 0;
      const std::size_t some = std::min<std::size_t>(Bits, bytes);
      std::memcpy(&word, codes + j, std::min<std::size_t>(8, count - j));
      code_words<Bits>::join(word);
      std::memcpy(to, &word, some);
      to += some;
      bytes -= some;
    }
    std::fill_n(to, bytes, byte{0});
  }
  /// @tparam Spare  8 bytes may be written for a word whose bytes are no integer: zeros are overwritten by the next one
  template <std::size_t N, bool Spare>
  SINQ_INLINE static void write(const std::uint8_t* codes, byte* to) {
    if constexpr (code_words<Bits>::has_type) {
      vec<typename code_words<Bits>::of_byte, N * Bits> some;
      load(codes, some);
      code_words<Bits>::join_byte(some);
      store(__builtin_convertvector(some, vec<std::uint8_t, N * Bits>), to);
      return;
    }
    vec<std::uint64_t, N> words;
    load(codes, words);
    code_words<Bits>::join(words);
    if constexpr (Bits == 8) return store(words, to);
    for (std::size_t k = 0; k < N; ++k) {
      const std::uint64_t word = words[k];
      std::memcpy(to + k * Bits, &word, Spare ? sizeof word : Bits);
    }
  }
};

/// Unpacks a row of codes.
template <int Bits>
struct unpack_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const byte* from, std::size_t bytes, std::uint8_t* codes, std::size_t count) {
    constexpr std::size_t words = W < 2 ? 1 : W / 2;
    vec<std::uint64_t, words> parted{};
    std::size_t j = 0;
    for (; j + 8 * words <= count; j += 8 * words, from += words * Bits, bytes -= words * Bits) {
      if (bytes >= words * Bits + 8)
        read<true>(from, parted);
      else
        read<false>(from, parted);
      code_words<Bits>::part(parted);
      store(parted, codes + j);
    }
    for (; j < count; j += 8) {
      std::uint64_t word = 0;
      const std::size_t some = std::min<std::size_t>(Bits, bytes);
      std::memcpy(&word, from, some);
      code_words<Bits>::part(word);
      std::memcpy(codes + j, &word, std::min<std::size_t>(8, count - j));
      from += some;
      bytes -= some;
    }
  }

private:
  /// @tparam Spare  8 bytes may be read for a word whose bytes are no integer: part() drops those of the next one
  template <bool Spare, class Words>
  SINQ_INLINE static void read(const byte* from, Words& words) {
    constexpr std::size_t count = sizeof words / sizeof words[0];
    if constexpr (Bits == 8) {
      load(from, words);
    } else if constexpr (code_words<Bits>::has_type) {
      vec<typename code_words<Bits>::packed, count> packed;
      load(from, packed);
      words = __builtin_convertvector(packed, Words);
    } else {
      Words gathered{};
      for (std::size_t k = 0; k < count; ++k) {
        std::uint64_t word = 0;
        std::memcpy(&word, from + k * Bits, Spare ? 8 : Bits);
        gathered[k] = word;
      }
      words = gathered;
    }
  }
};

} // namespace sinq::detail
