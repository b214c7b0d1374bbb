#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace engine {

/// How a byte-level vocabulary spells bytes: printable ones of Latin-1 as themselves, the others, in order, as the
/// characters from U+0100 on. Source: bytes_to_unicode of GPT-2's encoder.
[[nodiscard]] std::string spell_bytes(std::string_view bytes);

/// The bytes that a token spells; nothing if it has a character that stands for none. @pre valid UTF-8
[[nodiscard]] std::optional<std::string> spelled_bytes(std::string_view token);

} // namespace engine
