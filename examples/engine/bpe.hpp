#pragma once

#include <sinq/core/error.hpp>

#include <nlohmann/json_fwd.hpp>

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace engine {

/// Lets maps of strings be asked with views.
struct string_hash : std::hash<std::string_view> {
  using is_transparent = void;
};
template <class Value>
using string_map = std::unordered_map<std::string, Value, string_hash, std::equal_to<>>;

/// Token numbers are below this.
inline constexpr int max_token_count = 1 << 21;

/// Byte pair encoding: the vocabulary and the ranked merges of tokens.
class bpe {
public:
  struct merge {
    std::uint32_t rank = 0; ///< its place among the merges: the lowest is done first
    int token = 0;          ///< what the two become
  };

  /// Reads the `model` of a byte-level tokenizer.json.
  /// @errors  errc::malformed (numbers out of range or given twice, merges of what is not in the vocabulary; names
  /// them),
  ///          errc::unsupported (another model, or an option that changes what tokens are made; names it)
  [[nodiscard]] static sinq::result<bpe> read(const nlohmann::json& model);

  /// Tokens by how the vocabulary spells them.
  [[nodiscard]] const string_map<int>& vocabulary() const { return vocabulary_; }

  /// The token of one byte; nothing if the vocabulary has none: the byte is left out, as tokenizers leaves it.
  [[nodiscard]] std::optional<int> token_of(unsigned char byte) const { return bytes_[byte]; }
  [[nodiscard]] std::optional<merge> merge_of(int left, int right) const;
  /// The token that is this whole word, where the file says to look before merging.
  [[nodiscard]] std::optional<int> whole_word(std::string_view word) const;

private:
  [[nodiscard]] static sinq::result<void> check_options(const nlohmann::json& model);
  [[nodiscard]] sinq::result<void> read_vocabulary(const nlohmann::json& model);
  [[nodiscard]] sinq::result<void> read_bytes(const nlohmann::json& model);
  [[nodiscard]] sinq::result<void> read_merges(const nlohmann::json& model);
  [[nodiscard]] sinq::result<void> add_merge(std::uint32_t rank, const std::string& left, const std::string& right);

  string_map<int> vocabulary_;
  std::array<std::optional<int>, 256> bytes_;
  std::unordered_map<std::uint64_t, merge> merges_; ///< by both tokens, left in the high half
  bool ignore_merges_ = false;
};

/// Encodes the words of one text, each different word once.
class word_encoder {
public:
  /// Adds tokens to `to`. @pre both outlive it, and words stay where they are
  word_encoder(const bpe& model, std::vector<int>& to) : model_{model}, to_{to} {}

  void add(std::string_view word);

private:
  /// A token of the word, linked to its neighbours; -1: none.
  struct symbol {
    int token = 0;
    int previous = -1, next = -1;
  };
  /// Two neighbours that may become one; stale once one of them has changed.
  struct candidate {
    bpe::merge merge;
    int at = 0;
    int left = 0, right = 0;
  };

  void encode(std::string_view word);
  void merge_symbols();
  void propose(int at);
  [[nodiscard]] bool stale(const candidate& c) const;

  const bpe& model_;
  std::vector<int>& to_;
  std::unordered_map<std::string_view, std::pair<std::size_t, std::size_t>> known_; ///< word -> [begin, end) in to_
  std::vector<symbol> symbols_;
  std::vector<candidate> queue_; ///< a heap, lowest rank first, then leftmost
};

} // namespace engine
