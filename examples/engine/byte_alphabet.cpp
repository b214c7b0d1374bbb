#include "byte_alphabet.hpp"

#include "unicode.hpp"

#include <array>

namespace engine {
namespace {

constexpr std::size_t letter_count = 0x144;

/// The character of each byte, and the byte of each character below U+0144, -1 for those of none.
struct byte_letters {
  std::array<int, 256> letter{};
  std::array<int, letter_count> byte{};
};

constexpr byte_letters letters = [] {
  byte_letters made;
  made.byte.fill(-1);
  int next = 0x100;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    const int letter = printable ? b : next++;
    made.letter[static_cast<std::size_t>(b)] = letter;
    made.byte[static_cast<std::size_t>(letter)] = b;
  }
  return made;
}();

} // namespace

std::string spell_bytes(std::string_view bytes) {
  std::string token;
  token.reserve(2 * bytes.size());
  for (const char b : bytes) {
    const int letter = letters.letter[static_cast<unsigned char>(b)];
    if (letter < 0x80) {
      token += static_cast<char>(letter);
    } else {
      token += static_cast<char>(0xc0 | letter >> 6);
      token += static_cast<char>(0x80 | (letter & 0x3f));
    }
  }
  return token;
}

std::optional<std::string> spelled_bytes(std::string_view token) {
  std::string bytes;
  bytes.reserve(token.size());
  for (std::size_t at = 0; at < token.size();) {
    const std::size_t size = first_utf8(token.substr(at)).size;
    if (size > 2) return std::nullopt;
    const unsigned lead = static_cast<unsigned char>(token[at]);
    const std::size_t letter =
        size == 1 ? lead : (lead & 0x1f) << 6 | (static_cast<unsigned char>(token[at + 1]) & 0x3f);
    if (letter >= letter_count || letters.byte[letter] < 0) return std::nullopt;
    bytes += static_cast<char>(letters.byte[letter]);
    at += size;
  }
  return bytes;
}

} // namespace engine
