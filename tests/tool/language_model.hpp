#pragma once

/// Tiny models of tests/golden/engine with a tokenizer, for the tool's commands.

#include "engine/golden_models.hpp"
#include "tool/tool.hpp"

#include <nlohmann/json.hpp>

namespace sinq_test {

/// The character of each of the 96 tokens: a byte-level tokenizer without merges.
inline std::string character_of(int token) {
  if (token < 94) return {static_cast<char>('!' + token)};
  return token == 94 ? " " : "\n";
}

inline nlohmann::json tokenizer_document() {
  using nlohmann::json;
  json vocabulary = json::object();
  for (int token = 0; token < 94; ++token) vocabulary[character_of(token)] = token;
  vocabulary["\u0120"] = 94; // how byte-level BPE spells a space and a line's end
  vocabulary["\u010a"] = 95;
  const json bytes{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  return {{"version", "1.0"},
          {"added_tokens", json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", bytes},
          {"post_processor", nullptr},
          {"decoder", bytes},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", json::array()}}}};
}

/// A golden model with that tokenizer.
inline fs::path make_language_model(const fs::path& to, const std::string& name) {
  fs::create_directories(to);
  for (const char* const file : {"config.json", "model.safetensors"})
    fs::copy_file(golden_model(name) / file, to / file);
  write_file(to / "tokenizer.json", tokenizer_document().dump());
  return to;
}

inline std::string spelled(const std::vector<int>& tokens) {
  std::string text;
  for (const int token : tokens) text += character_of(token);
  return text;
}
/// The text of all sequences.
inline std::string spelled(const expectation& e) {
  std::string text;
  for (const std::vector<int>& tokens : e.tokens) text += spelled(tokens);
  return text;
}

/// The number behind a word of the output.
inline double number_after(const std::string& out, const std::string& word) {
  const std::size_t at = out.find(word);
  REQUIRE(at != std::string::npos);
  return std::stod(out.substr(at + word.size()));
}

} // namespace sinq_test
