#include "unicode.hpp"

#include <sinq/core/config.hpp>

#include <algorithm>
#include <array>
#include <vector>

#include <utf8proc.h>

namespace engine {
namespace {

constexpr std::string_view replacement_character = "\xef\xbf\xbd";

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

char32_t first_character(std::string_view text) {
  utf8proc_int32_t character = 0;
  utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &character);
  return static_cast<char32_t>(character);
}

std::string_view last_utf8(std::string_view text) {
  std::size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) --at;
  return text.substr(at);
}

bool is_space(char32_t c) {
  return (c >= 0x9 && c <= 0xd) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
         c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_word(char32_t c) {
  const bool joiner = c == 0x200c || c == 0x200d;
  const bool enclosed_letter = (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
                               (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
  case UTF8PROC_CATEGORY_LU:
  case UTF8PROC_CATEGORY_LL:
  case UTF8PROC_CATEGORY_LT:
  case UTF8PROC_CATEGORY_LM:
  case UTF8PROC_CATEGORY_LO:
  case UTF8PROC_CATEGORY_MN:
  case UTF8PROC_CATEGORY_MC:
  case UTF8PROC_CATEGORY_ME:
  case UTF8PROC_CATEGORY_ND:
  case UTF8PROC_CATEGORY_NL:
  case UTF8PROC_CATEGORY_PC: return true;
  default: return joiner || enclosed_letter;
  }
}

/// The canonical decomposition with its marks in canonical order. utf8proc_decompose gives the same, in time that grows
/// with the square of a run of marks.
std::vector<utf8proc_int32_t> decomposed(std::string_view text) {
  std::vector<utf8proc_int32_t> characters;
  characters.reserve(text.size());
  std::array<utf8proc_int32_t, 8> parts{}; // of one character: at most 4
  int unused = 0;
  while (!text.empty()) {
    const utf8proc_ssize_t count =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(first_character(text)), parts.data(), parts.size(),
                                static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE), &unused);
    SINQ_ASSERT(count > 0 && count <= static_cast<utf8proc_ssize_t>(parts.size()));
    characters.insert(characters.end(), parts.begin(), parts.begin() + count);
    text.remove_prefix(first_utf8(text).size);
  }
  const auto order = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  const auto starts = [order](utf8proc_int32_t c) { return order(c) == 0; };
  for (auto run = characters.begin(); run != characters.end();) {
    const auto end = std::find_if(run, characters.end(), starts);
    std::stable_sort(run, end, [order](auto a, auto b) { return order(a) < order(b); });
    run = std::find_if_not(end, characters.end(), starts);
  }
  return characters;
}

} // namespace

utf8_step first_utf8(std::string_view text) {
  SINQ_ASSERT(!text.empty());
  const auto byte_at = [text](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte_at(0);
  if (lead < 0x80) return {1, utf8_step::kind::whole};
  if (lead < 0xc2 || lead > 0xf4) return {1, utf8_step::kind::broken};
  const std::size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  // overlong forms, surrogates and what is beyond U+10FFFF show in the second byte
  unsigned least = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  unsigned most = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  for (std::size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {i, utf8_step::kind::cut};
    if (byte_at(i) < least || byte_at(i) > most) return {i, utf8_step::kind::broken};
    least = 0x80, most = 0xbf;
  }
  return {length, utf8_step::kind::whole};
}

std::string replace_broken_utf8(std::string_view text) {
  std::string whole;
  whole.reserve(text.size());
  while (!text.empty()) {
    const utf8_step step = first_utf8(text);
    whole += step.what == utf8_step::kind::whole ? text.substr(0, step.size) : replacement_character;
    text.remove_prefix(step.size);
  }
  return whole;
}

std::size_t cut_utf8(std::string_view text) {
  constexpr std::size_t longest_beginning = 3;
  for (std::size_t size = std::min(text.size(), longest_beginning); size > 0; --size) {
    const utf8_step step = first_utf8(text.substr(text.size() - size));
    if (step.what == utf8_step::kind::cut && step.size == size) return size;
  }
  return 0;
}

std::string to_nfc(std::string_view text) {
  if (is_ascii(text)) return std::string{text};
  std::vector<utf8proc_int32_t> characters = decomposed(text);
  const utf8proc_ssize_t count =
      utf8proc_normalize_utf32(characters.data(), static_cast<utf8proc_ssize_t>(characters.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  SINQ_ASSERT(count >= 0);
  characters.resize(static_cast<std::size_t>(count));
  std::string composed;
  composed.reserve(text.size());
  std::array<utf8proc_uint8_t, 4> bytes{};
  for (const utf8proc_int32_t c : characters) {
    const auto size = static_cast<std::size_t>(utf8proc_encode_char(c, bytes.data()));
    composed.append(reinterpret_cast<const char*>(bytes.data()), size);
  }
  return composed;
}

std::size_t spaces_at_start(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size() && is_space(first_character(text.substr(at)))) at += first_utf8(text.substr(at)).size;
  return at;
}

std::size_t spaces_at_end(std::string_view text) {
  std::string_view rest = text;
  while (!rest.empty() && is_space(first_character(last_utf8(rest)))) rest.remove_suffix(last_utf8(rest).size());
  return text.size() - rest.size();
}

bool starts_with_word(std::string_view text) {
  return !text.empty() && is_word(first_character(text));
}

bool ends_with_word(std::string_view text) {
  return !text.empty() && is_word(first_character(last_utf8(text)));
}

} // namespace engine
