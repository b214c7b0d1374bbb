#pragma once

#include "added_tokens.hpp"
#include "bpe.hpp"
#include "pretokenizer.hpp"

#include <sinq/core/error.hpp>

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace engine {

/// Byte-level BPE as a Hugging Face `tokenizer.json` describes it: text to token numbers and back.
///
/// Text goes through: added tokens that stand in it; the normalizer (none, NFC); other added tokens; the pre-tokenizer,
/// which cuts it into words; byte pair encoding of each word; the post-processor, which puts tokens around it.
/// `truncation` and `padding` are left to the caller. A tokenizer may be used by many threads at once.
class tokenizer {
public:
  /// Reads a tokenizer.json, or that of a directory.
  /// @errors  errc::not_found, errc::io, errc::malformed (wrong types, numbers out of range or given twice, merges of
  ///          what is not in the vocabulary; names it), errc::unsupported (a component, option or pattern that is not
  ///          known here, as SentencePiece's; names it); every message starts with the path
  [[nodiscard]] static sinq::result<tokenizer> open(const std::filesystem::path& directory_or_file);

  /// The tokens of a text in which added tokens count; with those of the post-processor around them if `special`.
  /// Broken UTF-8 is first replaced: U+FFFD for each maximal subpart. @pre below 2 GiB
  /// @errors  errc::unsupported (a pattern of the file needs too many steps on this text; names it)
  [[nodiscard]] sinq::result<std::vector<int>> encode(std::string_view text, bool special = true) const;

  /// The text of tokens, without special ones if asked; what is not UTF-8 becomes U+FFFD for each maximal subpart, and
  /// numbers of no token become nothing.
  [[nodiscard]] std::string decode(std::span<const int> tokens, bool skip_special = true) const;

  /// The bytes that a token stands for, which need not be whole characters; none for numbers of no token.
  [[nodiscard]] std::string_view bytes_of(int token) const;
  [[nodiscard]] bool is_special(int token) const;

  /// The tokens that the post-processor puts before a text.
  [[nodiscard]] std::span<const int> prefix() const { return prefix_; }

  /// The number of a token, as the file spells it.
  [[nodiscard]] std::optional<int> find(std::string_view token) const;

  /// One more than the highest token number.
  [[nodiscard]] std::size_t size() const { return tokens_.size(); }

private:
  struct entry {
    std::string bytes;
    bool taken = false, special = false;
  };

  tokenizer(bpe model, pretokenizer words, bool nfc);

  [[nodiscard]] static sinq::result<tokenizer> read(const nlohmann::json& document);
  [[nodiscard]] sinq::result<void> add_tokens(const std::vector<added_token>& added);
  [[nodiscard]] entry& entry_of(int token);
  [[nodiscard]] sinq::result<void> read_post_processor(const nlohmann::json& component);
  [[nodiscard]] sinq::result<void> read_template(const nlohmann::json& component);
  [[nodiscard]] sinq::result<std::vector<int>> template_tokens(const nlohmann::json& component,
                                                               const std::string& name) const;
  [[nodiscard]] sinq::result<void> encode_plain(std::string_view text, word_encoder& encoder,
                                                std::deque<std::string>& kept) const;

  bpe model_;
  pretokenizer words_;
  bool nfc_ = false;
  token_finder before_normalizing_{{}}, after_normalizing_{{}};
  string_map<int> added_;
  std::vector<entry> tokens_; ///< by number
  bool has_template_ = false;
  std::vector<int> prefix_, suffix_; ///< of the template: before and after the text
};

/// Turns tokens that come one by one into text, and holds back the bytes of an unfinished character.
class text_stream {
public:
  /// @pre `of` outlives the stream
  explicit text_stream(const tokenizer& of, bool skip_special = true) : tokens_{&of}, skip_special_{skip_special} {}

  /// The text that this token completes: together with what finish() gives, that of tokenizer::decode.
  [[nodiscard]] std::string push(int token);
  /// What was held back, as U+FFFD; the stream starts anew.
  [[nodiscard]] std::string finish();

private:
  const tokenizer* tokens_;
  bool skip_special_;
  std::string held_;
};

} // namespace engine
