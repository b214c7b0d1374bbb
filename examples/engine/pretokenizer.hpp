#pragma once

#include "regex.hpp"

#include <sinq/core/error.hpp>

#include <nlohmann/json_fwd.hpp>

#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace engine {

/// Cuts a text into the words that are encoded on their own: the `pre_tokenizer` of a byte-level tokenizer.json.
class pretokenizer {
public:
  /// Reads ByteLevel, Split, Digits, or a Sequence of them whose last is ByteLevel.
  /// @errors  errc::malformed, errc::unsupported (another type or pattern; names it)
  [[nodiscard]] static sinq::result<pretokenizer> read(const nlohmann::json& component);

  /// The words from left to right, none empty; those that are not parts of the text lie in `kept`.
  /// @pre valid UTF-8
  /// @errors  those of regex::find_all
  [[nodiscard]] sinq::result<std::vector<std::string_view>> words(std::string_view text,
                                                                  std::deque<std::string>& kept) const;

private:
  /// What becomes of matches: words of their own, nothing, or parts of the word beside them.
  enum class behavior { isolated, removed, contiguous, merged_with_previous, merged_with_next };

  struct split_step {
    regex pattern;
    behavior on_match = behavior::isolated;
    bool invert = false; ///< what does not match is taken for the match
  };

  /// A part of a text that is a match or what lies between two.
  struct piece {
    text_range range;
    bool match = false;
  };

  [[nodiscard]] sinq::result<void> add(const nlohmann::json& component);
  [[nodiscard]] sinq::result<void> add_byte_level(const nlohmann::json& component);
  [[nodiscard]] sinq::result<void> add_split(const nlohmann::json& component);
  [[nodiscard]] sinq::result<void> add_digits(const nlohmann::json& component);

  [[nodiscard]] static sinq::result<behavior> read_behavior(const nlohmann::json& component);
  [[nodiscard]] static sinq::result<std::vector<piece>> pieces_of(std::string_view text, const split_step& step);
  [[nodiscard]] static std::vector<piece> merged(const std::vector<piece>& pieces, behavior on_match);

  std::vector<split_step> before_byte_level_, of_byte_level_;
  bool byte_level_ = false;
  bool prefix_space_ = false; ///< ByteLevel puts a space before what does not begin with one
};

} // namespace engine
