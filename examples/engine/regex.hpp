#pragma once

#include <sinq/core/error.hpp>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct pcre2_real_code_8;
struct pcre2_real_match_context_8;

namespace engine {

/// Where a pattern matched: bytes [begin, end) of the text.
struct text_range {
  std::size_t begin = 0, end = 0;
};

/// A regular expression of a tokenizer, which is Oniguruma's dialect, run by PCRE2.
///
/// Only what means the same in both is accepted; \s and \S, where PCRE2 also counts U+180E, are spelled out. \p{...}
/// are those of PCRE2's version of Unicode.
class regex {
public:
  /// @errors  errc::unsupported (not a pattern of both dialects, or too large; names what is not)
  [[nodiscard]] static sinq::result<regex> compile(std::string_view pattern);
  /// What matches this text and nothing else.
  [[nodiscard]] static sinq::result<regex> literal(std::string_view text);

  /// Adds all matches from left to right; an empty one is left out where another ends. @pre valid UTF-8
  /// @errors  errc::unsupported (the pattern needs too many steps or too much memory on this text)
  [[nodiscard]] sinq::result<void> find_all(std::string_view text, std::vector<text_range>& to) const;

private:
  regex(pcre2_real_code_8* code, std::string_view pattern);
  [[nodiscard]] static sinq::result<regex> compile_as(std::string_view source, std::uint32_t options,
                                                      std::string_view pattern);

  std::shared_ptr<const pcre2_real_code_8> code_;
  std::shared_ptr<pcre2_real_match_context_8> limits_;
  std::string pattern_;
};

} // namespace engine
