#pragma once

#include "../core/types.hpp"
#include "../core/wide.hpp"
#include "layout.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>

/// Codes of the canonical layout (pack/layout.hpp) to and from the words of lanes (layout.hpp), 64 columns at a time:
/// all of it is loads, shifts, masks and transpositions of whole 8-byte words, some of them in one vector.
namespace sinq::cuda::detail {

using sinq::detail::vec;

/// The b words that 64 codes of a row fill in the canonical layout.
template <int Bits>
using row_words = std::array<std::uint64_t, Bits>;
/// 64 codes of a row in 2, 4 or 8 bits each.
template <int Width>
using wide_words = vec<std::uint64_t, Width>;
/// A word of four lanes each.
using lane_quad = vec<std::uint32_t, 4>;

/// The lowest `bits` bits of every `period`. @pre bits < 64
[[nodiscard]] constexpr std::uint64_t every(int bits, int period) {
  std::uint64_t mask = 0;
  for (int from = 0; from < 64; from += period) mask |= ((std::uint64_t{1} << bits) - 1) << from;
  return mask;
}

/// Codes of From bits, side by side at the bottom of each field of Codes * To bits, get To bits each: the upper half of
/// them moves up, then the upper half of each half. What lies above them is dropped.
template <int From, int To, int Codes = 64 / To, class Words>
SINQ_INLINE void widen(Words& x) {
  if constexpr (From < To && Codes > 1) {
    constexpr int half = Codes / 2;
    constexpr std::uint64_t lower = every(half * From, Codes * To), upper = lower << half * From;
    x = (x & lower) | (x & upper) << half * (To - From);
    widen<From, To, half>(x);
  }
}
/// The inverse of widen; it drops the upper To - From bits of each code.
template <int From, int To, int Codes = 64 / To, class Words>
SINQ_INLINE void narrow(Words& x) {
  if constexpr (From < To && Codes > 1) {
    constexpr int half = Codes / 2;
    constexpr std::uint64_t lower = every(half * From, Codes * To), upper = lower << half * From;
    narrow<From, To, half>(x);
    x = (x & lower) | (x >> half * (To - From) & upper);
  }
}

/// Exchanges the second and the third of every four fields.
template <int Bits, class Words>
SINQ_INLINE void exchange_middle(Words& x) {
  const Words differ = (x ^ x >> Bits) & every(Bits, 4 * Bits) << Bits;
  x ^= differ | differ << Bits;
}
/// In every eight codes (every four, where they have 8 bits), the even ones before the odd ones.
template <int Width, class Words>
SINQ_INLINE void part_pairs(Words& x) {
  if constexpr (Width < 8) exchange_middle<Width>(x);
  exchange_middle<(Width < 8 ? 2 * Width : 8)>(x);
}
/// The inverse of part_pairs.
template <int Width, class Words>
SINQ_INLINE void join_pairs(Words& x) {
  exchange_middle<(Width < 8 ? 2 * Width : 8)>(x);
  if constexpr (Width < 8) exchange_middle<Width>(x);
}

/// Reads the 64 codes of a row from a multiple of 64 on; codes behind the last column are 0.
/// @param row  packed, or nothing: codes of 0
template <int Bits>
SINQ_INLINE void load_words(std::span<const byte> row, std::size_t cols, std::size_t from, row_words<Bits>& to) {
  if (!row.empty() && from + 64 <= cols) {
    std::memcpy(to.data(), row.data() + from / 8 * Bits, sizeof to);
    return;
  }
  to.fill(0);
  if (row.empty()) return;
  const std::size_t bits = (cols - from) * Bits;
  std::memcpy(to.data(), row.data() + from / 8 * Bits, (bits + 63) / 64 * 8);
  if (bits % 64 != 0) to[bits / 64] &= (std::uint64_t{1} << bits % 64) - 1;
}
/// The inverse of load_words: padding is written as 0.
template <int Bits>
SINQ_INLINE void store_words(row_words<Bits>& words, std::size_t cols, std::size_t from, std::span<byte> row) {
  if (from + 64 <= cols) {
    std::memcpy(row.data() + from / 8 * Bits, words.data(), sizeof words);
    return;
  }
  const std::size_t bits = (cols - from) * Bits;
  if (bits % 64 != 0) words[bits / 64] &= (std::uint64_t{1} << bits % 64) - 1;
  std::memcpy(row.data() + from / 8 * Bits, words.data(), (bits + 63) / 64 * 8);
}

/// Word K of codes of Bits bits once they have Width bits each; above its own codes are others.
template <int Bits, int Width, int K>
SINQ_INLINE std::uint64_t part_of(const row_words<Bits>& words) {
  constexpr int step = 64 / Width * Bits, word = K * step / 64, shift = K * step % 64;
  if constexpr (shift + step > 64)
    return words[word] >> shift | words[word + 1] << (64 - shift);
  else
    return words[word] >> shift;
}
template <int Bits, int Width, std::size_t... K>
SINQ_INLINE void spread(const row_words<Bits>& from, wide_words<Width>& to, std::index_sequence<K...>) {
  to = wide_words<Width>{part_of<Bits, Width, K>(from)...};
}
/// Codes of Bits bits in Width bits each.
template <int Bits, int Width>
SINQ_INLINE void spread(const row_words<Bits>& from, wide_words<Width>& to) {
  if constexpr (Bits == Width)
    std::memcpy(&to, from.data(), sizeof to);
  else
    spread<Bits, Width>(from, to, std::make_index_sequence<Width>{});
  widen<Bits, Width>(to);
}
/// The inverse of spread.
template <int Bits, int Width>
SINQ_INLINE void gather(wide_words<Width>& from, row_words<Bits>& to) {
  constexpr std::size_t step = 64 / Width * Bits;
  narrow<Bits, Width>(from);
  if constexpr (Bits == Width) {
    std::memcpy(to.data(), &from, sizeof to);
  } else {
    to.fill(0);
    for (std::size_t k = 0; k < Width; ++k) {
      const std::size_t word = k * step / 64, shift = k * step % 64;
      to[word] |= from[k] << shift;
      if (shift + step > 64) to[word + 1] |= from[k] >> (64 - shift);
    }
  }
}

/// Codes of two rows, g and g + 8, and 64 columns to and from what four lanes own of them in a record.
template <code_form Form>
struct lane_words {
  static constexpr int width = Form == code_form::u3 || Form == code_form::table4 ? 4 : bits_of(Form);
  using wide = wide_words<width>;

  /// @param lane  the first of the four, 4 g
  SINQ_INLINE static void put(wide (&rows)[2], std::uint8_t* record, unsigned lane, unsigned block) {
    if constexpr (Form != code_form::table4)
      for (wide& x : rows) part_pairs<width>(x);
    if constexpr (Form == code_form::u8) {
      for (unsigned r = 0; r < 2; ++r) {
        const wide x = __builtin_shufflevector(rows[r], rows[r], 0, 4, 1, 5, 2, 6, 3, 7);
        std::memcpy(record + ((block * 2 + r) * 32 + lane) * 16, &x, sizeof x);
      }
    } else if constexpr (width == 4 && Form != code_form::u3) {
      lane_quad words[4];
      for (unsigned r = 0; r < 2; ++r) halves(rows[r], words[2 * r], words[2 * r + 1]);
      sinq::detail::transpose<4>(words);
      std::memcpy(record + (block * 32 + lane) * 16, words, sizeof words);
    } else {
      lane_quad low[2];
      for (unsigned r = 0; r < 2; ++r) put_low(rows[r], low[r]);
      const lane_quad words[2] = {__builtin_shufflevector(low[0], low[1], 0, 4, 1, 5),
                                  __builtin_shufflevector(low[0], low[1], 2, 6, 3, 7)};
      std::memcpy(record + (block * 32 + lane) * 8, words, sizeof words);
      if constexpr (Form == code_form::u3) put_high(rows, record + high_bits + (block * 32 + lane) * 4);
    }
  }
  /// The inverse of put.
  SINQ_INLINE static void take(const std::uint8_t* record, unsigned lane, unsigned block, wide (&rows)[2]) {
    if constexpr (Form == code_form::u8) {
      for (unsigned r = 0; r < 2; ++r) {
        wide x;
        std::memcpy(&x, record + ((block * 2 + r) * 32 + lane) * 16, sizeof x);
        rows[r] = __builtin_shufflevector(x, x, 0, 2, 4, 6, 1, 3, 5, 7);
      }
    } else if constexpr (width == 4 && Form != code_form::u3) {
      lane_quad words[4];
      std::memcpy(words, record + (block * 32 + lane) * 16, sizeof words);
      sinq::detail::transpose<4>(words);
      for (unsigned r = 0; r < 2; ++r) whole(words[2 * r], words[2 * r + 1], rows[r]);
    } else {
      lane_quad words[2];
      std::memcpy(words, record + (block * 32 + lane) * 8, sizeof words);
      take_low(__builtin_shufflevector(words[0], words[1], 0, 2, 4, 6), rows[0]);
      take_low(__builtin_shufflevector(words[0], words[1], 1, 3, 5, 7), rows[1]);
      if constexpr (Form == code_form::u3) take_high(record + high_bits + (block * 32 + lane) * 4, rows);
    }
    if constexpr (Form != code_form::table4)
      for (wide& x : rows) join_pairs<width>(x);
  }

private:
  static constexpr unsigned high_bits = 512; ///< where those of u3 begin

  SINQ_INLINE static void halves(const wide_words<4>& x, lane_quad& first, lane_quad& second) {
    first = reinterpret_cast<lane_quad>(__builtin_shufflevector(x, x, 0, 1));
    second = reinterpret_cast<lane_quad>(__builtin_shufflevector(x, x, 2, 3));
  }
  SINQ_INLINE static void whole(const lane_quad& first, const lane_quad& second, wide_words<4>& x) {
    x = reinterpret_cast<wide_words<4>>(__builtin_shufflevector(first, second, 0, 1, 2, 3, 4, 5, 6, 7));
  }

  /// The lowest two bits of a lane's codes of both halves of a row: pair n at bits 2 n and 2 n + 16.
  SINQ_INLINE static void put_low(const wide& x, lane_quad& to) {
    if constexpr (Form == code_form::u2) {
      const auto bytes = reinterpret_cast<vec<std::uint8_t, 16>>(x);
      to = reinterpret_cast<lane_quad>(
          __builtin_shufflevector(bytes, bytes, 0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
    } else {
      join_halves<2>(x, to);
    }
  }
  SINQ_INLINE static void take_low(const lane_quad& from, wide& x) {
    if constexpr (Form == code_form::u2) {
      const auto bytes = reinterpret_cast<vec<std::uint8_t, 16>>(from);
      x = reinterpret_cast<wide>(
          __builtin_shufflevector(bytes, bytes, 0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
    } else {
      part_halves<2>(from, x);
    }
  }
  /// The third bits of u3, of both rows: pair n of row r at bits n + 8 r and n + 8 r + 16.
  SINQ_INLINE static void put_high(const wide (&rows)[2], std::uint8_t* to) {
    lane_quad high[2];
    for (unsigned r = 0; r < 2; ++r) join_halves<1>(rows[r] >> 2, high[r]);
    high[0] |= high[1] << 8;
    std::memcpy(to, &high[0], sizeof high[0]);
  }
  SINQ_INLINE static void take_high(const std::uint8_t* from, wide (&rows)[2]) {
    lane_quad high;
    std::memcpy(&high, from, sizeof high);
    for (wide& x : rows) {
      wide bits;
      part_halves<1>(high, bits);
      x |= bits << 2;
      high >>= 8;
    }
  }
  /// The lowest Bits bits of codes in 4 bits, of both halves of a row side by side.
  template <int Bits>
  SINQ_INLINE static void join_halves(const wide_words<4>& x, lane_quad& to) {
    wide_words<4> narrowed = x;
    narrow<Bits, 4, 4>(narrowed);
    lane_quad second;
    halves(narrowed, to, second);
    to |= second << 4 * Bits;
  }
  /// The inverse of join_halves; what lies above those bits is dropped.
  template <int Bits>
  SINQ_INLINE static void part_halves(const lane_quad& from, wide_words<4>& x) {
    whole(from, from >> 4 * Bits, x);
    widen<Bits, 4, 4>(x);
  }
};

/// Puts 16 rows of packed codes into their records.
template <int Bits, code_form Form>
struct put_rows_loop {
  /// @param rows     packed; those behind the last row are empty
  /// @param records  of the tile, all codes 0
  template <std::size_t W>
  SINQ_INLINE static void run(const std::array<std::span<const byte>, tile_rows>& rows, std::size_t cols,
                              std::uint8_t* records, std::size_t record_bytes) {
    using lanes = lane_words<Form>;
    for (std::size_t from = 0; from < cols; from += 64)
      for (unsigned g = 0; g < tile_rows / 2; ++g) {
        typename lanes::wide codes[2]{};
        for (unsigned r = 0; r < 2; ++r) {
          row_words<Bits> words;
          load_words<Bits>(rows[g + 8 * r], cols, from, words);
          spread<Bits, lanes::width>(words, codes[r]);
        }
        lanes::put(codes, records + from / unit_cols * record_bytes, 4 * g, from / 64 % 2);
      }
  }
};
/// The inverse of put_rows_loop.
template <code_form Form>
struct take_rows_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const std::uint8_t* records, std::size_t record_bytes, std::size_t cols,
                              const std::array<std::span<byte>, tile_rows>& rows) {
    using lanes = lane_words<Form>;
    constexpr int bits = bits_of(Form);
    for (std::size_t from = 0; from < cols; from += 64)
      for (unsigned g = 0; g < tile_rows / 2; ++g) {
        typename lanes::wide codes[2];
        lanes::take(records + from / unit_cols * record_bytes, 4 * g, from / 64 % 2, codes);
        for (unsigned r = 0; r < 2; ++r) {
          if (rows[g + 8 * r].empty()) continue;
          row_words<bits> words;
          gather<bits, lanes::width>(codes[r], words);
          store_words<bits>(words, cols, from, rows[g + 8 * r]);
        }
      }
  }
};

} // namespace sinq::cuda::detail
