#pragma once

#include <sinq/core/error.hpp>

#include <nlohmann/json_fwd.hpp>

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace engine {

/// A token that is found in the text itself, before it is cut into words.
struct added_token {
  int id = 0;
  std::string content;
  bool special = false;                ///< left out of decoded text if asked
  bool single_word = false;            ///< not where a letter of a word is beside it
  bool lstrip = false, rstrip = false; ///< takes the spaces on its left or right with it
  bool normalized = false;             ///< found, itself normalized, in normalized text
};

/// Reads `added_tokens` of a tokenizer.json.
/// @errors  errc::malformed (names the entry)
[[nodiscard]] sinq::result<std::vector<added_token>> read_added_tokens(const nlohmann::json& document);

/// Finds added tokens in texts: at each place the longest, from left to right.
class token_finder {
public:
  explicit token_finder(std::vector<added_token> tokens);

  /// A token, or the text between two.
  struct part {
    std::string_view text;
    const added_token* token = nullptr; ///< null: text
  };

  /// The parts of a text, from left to right, none empty. @pre valid UTF-8; the finder and the text outlive the parts
  [[nodiscard]] std::vector<part> parts(std::string_view text) const;

private:
  [[nodiscard]] const added_token* longest_at(std::string_view text) const;

  std::vector<added_token> tokens_;      ///< sorted by content
  std::array<std::size_t, 257> first_{}; ///< those that begin with byte b: [first_[b], first_[b + 1])
};

} // namespace engine
