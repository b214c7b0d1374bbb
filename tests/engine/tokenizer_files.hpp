#pragma once

/// The golden tokenizers of tests/golden/make_tokenizer.py, changed where a test wants, and what they should give.

#include "io/files.hpp"
#include "support/compare.hpp"
#include "support/outcome.hpp"

#include <engine/byte_alphabet.hpp>
#include <engine/tokenizer.hpp>
#include <engine/unicode.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sinq_test {

inline fs::path tokenizer_path(const std::string& name) {
  return fs::path{SINQ_TEST_DATA_DIR} / "engine" / "tokenizer" / name;
}

inline nlohmann::json tokenizer_json(const std::string& name) {
  return nlohmann::json::parse(read_file(tokenizer_path(name)));
}

/// Opens a tokenizer of this text.
inline sinq::result<engine::tokenizer> open_tokenizer(const std::string& content) {
  const scratch directory;
  write_file(directory / "tokenizer.json", content);
  return engine::tokenizer::open(directory.root());
}

/// Opens a golden tokenizer with these members put over its own.
inline sinq::result<engine::tokenizer> open_changed(const std::string& name, const nlohmann::json& members) {
  nlohmann::json document = tokenizer_json(name);
  for (const auto& [key, value] : members.items()) document[key] = value;
  return open_tokenizer(document.dump());
}

/// A Sequence of one Split by a regular expression, and ByteLevel.
inline nlohmann::json split_by(const nlohmann::json& pattern) {
  using nlohmann::json;
  const json split{{"type", "Split"}, {"pattern", pattern}, {"behavior", "Isolated"}, {"invert", false}};
  const json byte_level{
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  return {{"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", json::array({split, byte_level})}}}};
}

/// The cases of page.bin.
inline std::vector<std::string> tokenizer_page() {
  constexpr std::string_view separator = "\n%%\n";
  const std::string page = read_file(tokenizer_path("page.bin"));
  std::vector<std::string> cases;
  for (std::size_t begin = 0; begin != std::string::npos;) {
    const std::size_t end = page.find(separator, begin);
    cases.push_back(page.substr(begin, end == std::string::npos ? end : end - begin));
    begin = end == std::string::npos ? end : end + separator.size();
  }
  return cases;
}

/// Whether two lists of tokens are the same.
inline verdict same_tokens(const std::vector<int>& actual, const std::vector<int>& expected) {
  const auto [a, e] = std::mismatch(actual.begin(), actual.end(), expected.begin(), expected.end());
  if (a == actual.end() && e == expected.end()) return {};
  const auto shown = [](auto at, auto end) { return at == end ? std::string{"nothing"} : std::to_string(*at); };
  return detail::differs("token ", a - actual.begin(), " of ", actual.size(), " is ", shown(a, actual.end()),
                         ", expected ", shown(e, expected.end()), " of ", expected.size());
}

/// Whether a tokenizer gives the tokens and texts that are expected of a case.
inline verdict same_case(const engine::tokenizer& tokens, const std::string& text, const nlohmann::json& expected) {
  const auto ids = expected["ids"].get<std::vector<int>>();
  const auto shown = expected["shown"].get<std::string>();
  if (const verdict v = same_tokens(value_of(tokens.encode(text)), ids); !v) return v;
  const auto plain = expected.value("plain", ids);
  if (const verdict v = same_tokens(value_of(tokens.encode(text, false)), plain); !v) return v;
  if (tokens.decode(ids) != shown) return detail::differs("the text is ", tokens.decode(ids), ", expected ", shown);
  const auto decoded = expected.value("decoded", shown);
  if (tokens.decode(ids, false) != decoded)
    return detail::differs("the text is ", tokens.decode(ids, false), ", expected ", decoded);
  return {};
}

/// The first verdict on a case of the page that does not agree.
inline verdict same_page(const engine::tokenizer& tokens, const nlohmann::json& expected) {
  const std::vector<std::string> page = tokenizer_page();
  const nlohmann::json& cases = expected["cases"];
  if (cases.size() != page.size()) return detail::differs("cases ", page.size(), " and ", cases.size());
  for (std::size_t i = 0; i < page.size(); ++i)
    if (verdict v = same_case(tokens, page[i], cases[i]); !v) return detail::differs("case ", i, ": ", v.why);
  return {};
}

/// FNV-1a of tokens as 4 bytes each, lowest first.
inline std::uint64_t fnv1a(const std::vector<int>& tokens) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const int token : tokens)
    for (int shift = 0; shift < 32; shift += 8)
      hash = (hash ^ (static_cast<std::uint32_t>(token) >> shift & 0xff)) * 0x100000001b3;
  return hash;
}

} // namespace sinq_test
