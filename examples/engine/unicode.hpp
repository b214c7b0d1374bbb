#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace engine {

/// What bytes that should be UTF-8 begin with.
struct utf8_step {
  enum class kind {
    whole,  ///< a character
    broken, ///< no character, whatever follows
    cut,    ///< the beginning of a character, where the text ends
  };
  std::size_t size = 0; ///< bytes of the character, or of the longest beginning of one: Unicode's maximal subpart
  kind what = kind::whole;
};

/// The first step through a text. @pre it is not empty
[[nodiscard]] utf8_step first_utf8(std::string_view text);

/// Each maximal subpart of broken UTF-8 becomes U+FFFD, as Python's `errors="replace"` does.
[[nodiscard]] std::string replace_broken_utf8(std::string_view text);

/// Bytes at the end of a text that begin a character and do not finish it.
[[nodiscard]] std::size_t cut_utf8(std::string_view text);

/// Normalization form C. @pre valid UTF-8
[[nodiscard]] std::string to_nfc(std::string_view text);

/// Bytes of White_Space characters that a text begins or ends with. @pre valid UTF-8
[[nodiscard]] std::size_t spaces_at_start(std::string_view text);
[[nodiscard]] std::size_t spaces_at_end(std::string_view text);

/// Whether the first or last character belongs to a word: Unicode's \w, letters, marks, decimal digits, connectors and
/// joiners. @pre valid UTF-8
[[nodiscard]] bool starts_with_word(std::string_view text);
[[nodiscard]] bool ends_with_word(std::string_view text);

} // namespace engine
