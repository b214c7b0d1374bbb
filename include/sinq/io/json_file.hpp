#pragma once

#include "mapped_file.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <string>
#include <string_view>

namespace sinq::io {

/// Bounds of a JSON document of unknown origin that is held as a tree: 64 MiB of text, 16 levels.
inline constexpr std::size_t max_json_bytes = std::size_t{1} << 26;
inline constexpr int max_json_depth = 16;

/// How deep objects and arrays of a text lie inside each other; what is in strings does not count.
[[nodiscard]] inline int json_depth(std::string_view text) {
  int depth = 0;
  int deepest = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      quoted = c != '"';
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

/// Reads a JSON object; its keys are sorted.
/// @errors  errc::malformed (no such JSON, or no object), errc::unsupported (beyond a bound); messages go on from the
///          file's name: put it before them with error::in
[[nodiscard]] inline result<nlohmann::json> parse_json_object(std::string_view text) {
  if (text.size() > max_json_bytes)
    return make_error(errc::unsupported, "has ", text.size(), " bytes, more than the ", max_json_bytes, " allowed");
  if (const int depth = json_depth(text); depth > max_json_depth)
    return make_error(errc::unsupported, "is nested ", depth, " levels deep, more than the ", max_json_depth,
                      " allowed");
  try {
    nlohmann::json document = nlohmann::json::parse(text);
    if (!document.is_object()) return make_error(errc::malformed, "is ", document.type_name(), ", expected an object");
    return document;
  } catch (const nlohmann::json::exception& failure) {
    return make_error(errc::malformed, "is not valid JSON: ", in_quotes(failure.what()));
  }
}

/// Reads a file that is a JSON object.
/// @errors  those of mapped_file::open and parse_json_object; every message starts with the path
[[nodiscard]] inline result<nlohmann::json> load_json_object(const std::filesystem::path& path) {
  const auto file = mapped_file::open(path);
  if (!file) return file.error();
  const std::span<const byte> bytes = (*file)->bytes();
  auto document = parse_json_object({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  if (!document) return std::move(document).error().in(path.string());
  return document;
}

/// The text of a document, as it is put into a file. @pre its strings are UTF-8, as those of a parsed one are
[[nodiscard]] inline std::string json_text(const nlohmann::json& document) {
  return document.dump(2) + "\n";
}

} // namespace sinq::io
