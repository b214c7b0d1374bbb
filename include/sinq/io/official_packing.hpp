#pragma once

#include "../core/format.hpp"
#include "../core/types.hpp"

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace sinq::io {

/// How the official package packs codes of one width: several rows of codes share a row of words.
///
///   codes [R x g], R = N K / g, in the order (row of W, group):     row r of codes = group r % G of row r / G of W
///   words [S x g], S = ceil(R / P):    word[s][c] holds code[s][c], code[S + s][c], ..., code[(P - 1) S + s][c],
///                                      the first in the highest bits, nothing above; rows beyond R are zeros
///
///   8 bits  U8   | 0 0 0 0 0 0 0 0 |                                    P = 1
///   4 bits  U8   | 0 0 0 0 1 1 1 1 |                                    P = 2
///   2 bits  U8   | 0 0 1 1 2 2 3 3 |                                    P = 4
///   3 bits  I32  | - - 000 111 222 333 444 555 666 777 888 999 |        P = 10, 2 bits unused
///   5 bits  I32  | - - 00000 11111 22222 33333 44444 55555 |            P = 6,  2 bits unused
///   6 bits  I32  | - - 000000 111111 222222 333333 444444 |             P = 5,  2 bits unused
///                (high bit on the left, each digit the number of the block of S rows that the bit belongs to)
///
/// The package pads 3, 5 and 6 bits and refuses other R for 2 and 4 bits; its reader cuts what is beyond R away for
/// all. Source: huawei-csl/SINQ sinq/bitpack.py.
struct official_packing {
  int bits;
  std::size_t codes_per_word; ///< P
  dtype word;
  std::string_view name; ///< as the checkpoint spells it

  /// S, the rows of words for that many rows of codes.
  [[nodiscard]] constexpr std::size_t word_rows(std::size_t code_rows) const {
    return code_rows / codes_per_word + (code_rows % codes_per_word != 0 ? 1 : 0);
  }
  /// How far to the left of its word a code of block p lies.
  [[nodiscard]] constexpr int shift(std::size_t p) const { return bits * static_cast<int>(codes_per_word - 1 - p); }
};

inline constexpr std::array<official_packing, 6> official_packings{{
    {2, 4, dtype::u8, "2bit_u8"},
    {3, 10, dtype::i32, "3bit_32"},
    {4, 2, dtype::u8, "4bit_u8"},
    {5, 6, dtype::i32, "5bit_32"},
    {6, 5, dtype::i32, "6bit_32"},
    {8, 1, dtype::u8, "8bit_u8"},
}};

/// The packing of that width. @pre is_supported_bits(bits)
[[nodiscard]] constexpr const official_packing& packing_of(int bits) {
  std::size_t n = 0;
  while (official_packings[n].bits != bits) ++n;
  return official_packings[n];
}

namespace detail {

template <class Word>
void unpack_words(const official_packing& packing, const byte* words, int shift, std::span<std::uint8_t> codes) {
  for (std::size_t c = 0; c < codes.size(); ++c) {
    Word word;
    std::memcpy(&word, words + c * sizeof word, sizeof word);
    codes[c] = static_cast<std::uint8_t>((word >> shift) & static_cast<unsigned>(max_code(packing.bits)));
  }
}

template <class Word>
void pack_words(const official_packing& packing, std::span<const std::uint8_t> codes, std::size_t cols,
                std::span<byte> words) {
  const std::size_t code_rows = codes.size() / cols;
  const std::size_t word_rows = packing.word_rows(code_rows);
  for (std::size_t s = 0; s < word_rows; ++s)
    for (std::size_t c = 0; c < cols; ++c) {
      Word word = 0;
      for (std::size_t p = 0; p < packing.codes_per_word && p * word_rows + s < code_rows; ++p)
        word =
            static_cast<Word>(word | static_cast<unsigned>(codes[(p * word_rows + s) * cols + c]) << packing.shift(p));
      std::memcpy(words.data() + (s * cols + c) * sizeof word, &word, sizeof word);
    }
}

} // namespace detail

/// Row r of codes.
/// @param words  [S x cols], as little-endian bytes without alignment
/// @param codes  [cols]
/// @pre          r < code_rows, and words holds word_rows(code_rows) rows
inline void unpack_official_row(const official_packing& packing, std::span<const byte> words, std::size_t code_rows,
                                std::size_t r, std::span<std::uint8_t> codes) {
  const std::size_t word_rows = packing.word_rows(code_rows);
  const std::size_t row_bytes = codes.size() * size_bytes(packing.word);
  SINQ_ASSERT(r < code_rows && words.size() == word_rows * row_bytes);
  const byte* const from = words.data() + r % word_rows * row_bytes;
  const int shift = packing.shift(r / word_rows);
  if (packing.word == dtype::u8)
    detail::unpack_words<std::uint8_t>(packing, from, shift, codes);
  else
    detail::unpack_words<std::uint32_t>(packing, from, shift, codes);
}

/// Words of a matrix of codes [R x cols], as little-endian bytes.
/// @pre cols divides codes.size(), and every code <= max_code(packing.bits)
[[nodiscard]] inline std::vector<byte> pack_official(const official_packing& packing,
                                                     std::span<const std::uint8_t> codes, std::size_t cols) {
  SINQ_ASSERT(cols != 0 && codes.size() % cols == 0);
  std::vector<byte> words(packing.word_rows(codes.size() / cols) * cols * size_bytes(packing.word));
  if (packing.word == dtype::u8)
    detail::pack_words<std::uint8_t>(packing, codes, cols, words);
  else
    detail::pack_words<std::uint32_t>(packing, codes, cols, words);
  return words;
}

} // namespace sinq::io
