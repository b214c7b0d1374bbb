#include "regex.hpp"

#include <sinq/io/json_file.hpp>

#include <array>
#include <cctype>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace engine {
namespace {

constexpr std::size_t max_pattern_bytes = std::size_t{1} << 16;
constexpr std::uint32_t max_match_steps = 10'000'000;
constexpr std::uint32_t max_match_depth = 100'000;
constexpr std::uint32_t max_match_kib = 64 * 1024;

/// White_Space, and all else, as they stand between brackets.
constexpr std::string_view spaces = R"(\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f})"
                                    R"(\x{3000})";
constexpr std::string_view no_spaces = R"(\x{0}-\x{8}\x{e}-\x{1f}!-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff})"
                                       R"(\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff})"
                                       R"(\x{3001}-\x{10ffff})";

/// Walks over a pattern of Oniguruma and writes the same for PCRE2, or finds what is not the same there.
class dialect {
public:
  explicit dialect(std::string_view pattern) : rest_{pattern} {}

  [[nodiscard]] sinq::result<std::string> translate() {
    while (!rest_.empty() && foreign_.empty()) {
      if (rest_.front() == '\\')
        escape();
      else if (in_class_)
        class_member();
      else
        plain();
    }
    if (foreign_.empty()) return std::move(written_);
    return sinq::make_error(sinq::errc::unsupported, "has ", sinq::io::in_quotes(foreign_));
  }

private:
  void copy(std::size_t count) {
    written_ += rest_.substr(0, count);
    rest_.remove_prefix(std::min(count, rest_.size()));
  }
  void refuse(std::size_t count) { foreign_ = rest_.substr(0, count); }

  void escape() {
    const char c = rest_.size() > 1 ? rest_[1] : '\0';
    if (c == 's' || c == 'S') {
      const std::string_view members = c == 's' ? spaces : no_spaces;
      if (in_class_)
        written_ += members;
      else
        (((written_ += '[') += members) += ']');
      rest_.remove_prefix(2);
    } else if (c == '\0' || (std::isalnum(static_cast<unsigned char>(c)) != 0 &&
                             std::string_view{"dDpPrntfaexAzZ"}.find(c) == std::string_view::npos)) {
      refuse(2);
    } else {
      const bool braced = std::string_view{"pPx"}.find(c) != std::string_view::npos && rest_.substr(2).starts_with('{');
      const std::size_t end = braced ? rest_.find('}') : 1;
      copy(end == std::string_view::npos ? rest_.size() : end + 1);
    }
  }

  void class_member() {
    if (rest_.front() == '[' || rest_.starts_with("&&")) return refuse(2);
    in_class_ = rest_.front() != ']';
    copy(1);
  }

  void plain() {
    static constexpr std::array<std::string_view, 8> groups{"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?i)"};
    const char c = rest_.front();
    if (c == '[') {
      in_class_ = true;
      copy(rest_.starts_with("[^") ? 2 : 1);
      if (rest_.starts_with(']')) copy(1);
    } else if (rest_.starts_with("(?") || rest_.starts_with("(*")) {
      for (const std::string_view group : groups)
        if (rest_.starts_with(group)) return copy(group.size());
      refuse(4);
    } else if (rest_.starts_with("}+") || rest_.starts_with("{,")) {
      refuse(2);
    } else {
      copy(1);
    }
  }

  std::string_view rest_;
  std::string written_;
  std::string_view foreign_;
  bool in_class_ = false;
};

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR8, 256> text{};
  pcre2_get_error_message_8(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

sinq::result<void> check_size(std::string_view pattern) {
  if (pattern.size() <= max_pattern_bytes) return {};
  return sinq::make_error(sinq::errc::unsupported, "a pattern has ", pattern.size(), " bytes, more than the ",
                          max_pattern_bytes, " allowed");
}

sinq::error pattern_error(std::string_view pattern, std::string_view why) {
  return sinq::make_error(sinq::errc::unsupported, "the pattern ", sinq::io::in_quotes(pattern), " ", why);
}

} // namespace

regex::regex(pcre2_real_code_8* code, std::string_view pattern)
    : code_{code, &pcre2_code_free_8}, limits_{pcre2_match_context_create_8(nullptr), &pcre2_match_context_free_8},
      pattern_{pattern} {
  if (limits_ == nullptr) throw std::bad_alloc{};
  pcre2_set_match_limit_8(limits_.get(), max_match_steps);
  pcre2_set_depth_limit_8(limits_.get(), max_match_depth);
  pcre2_set_heap_limit_8(limits_.get(), max_match_kib);
}

sinq::result<regex> regex::compile_as(std::string_view source, std::uint32_t options, std::string_view pattern) {
  const std::unique_ptr<pcre2_compile_context_8, decltype(&pcre2_compile_context_free_8)> context{
      pcre2_compile_context_create_8(nullptr), &pcre2_compile_context_free_8};
  if (context == nullptr) throw std::bad_alloc{};
  pcre2_set_newline_8(context.get(), PCRE2_NEWLINE_LF);
  int failure = 0;
  PCRE2_SIZE at = 0;
  pcre2_code_8* const code = pcre2_compile_8(reinterpret_cast<PCRE2_SPTR8>(source.data()), source.size(), options,
                                             &failure, &at, context.get());
  if (code == nullptr) return pattern_error(pattern, "is not read: " + pcre2_message(failure));
  regex made{code, pattern};
  pcre2_jit_compile_8(code, PCRE2_JIT_COMPLETE); // where it cannot, matches are slower
  return made;
}

sinq::result<regex> regex::compile(std::string_view pattern) {
  if (auto ok = check_size(pattern); !ok) return ok.error();
  const auto source = dialect{pattern}.translate();
  if (!source) return pattern_error(pattern, source.error().message + ", which PCRE2 reads otherwise or not at all");
  // Oniguruma's ^ and $ are at every line
  return compile_as(*source, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, pattern);
}

sinq::result<regex> regex::literal(std::string_view text) {
  if (auto ok = check_size(text); !ok) return ok.error();
  return compile_as(text, PCRE2_UTF | PCRE2_LITERAL, text);
}

sinq::result<void> regex::find_all(std::string_view text, std::vector<text_range>& to) const {
  const std::unique_ptr<pcre2_match_data_8, decltype(&pcre2_match_data_free_8)> match{
      pcre2_match_data_create_8(1, nullptr), &pcre2_match_data_free_8};
  if (match == nullptr) throw std::bad_alloc{};
  const auto* const subject = reinterpret_cast<PCRE2_SPTR8>(text.data());
  const PCRE2_SIZE* const range = pcre2_get_ovector_pointer_8(match.get());
  std::size_t last_end = std::string_view::npos;
  for (std::size_t from = 0; from <= text.size();) {
    const auto run = [&](std::uint32_t options) {
      return pcre2_match_8(code_.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK | options, match.get(),
                           limits_.get());
    };
    int outcome = run(0);
    if (outcome == PCRE2_ERROR_JIT_STACKLIMIT) outcome = run(PCRE2_NO_JIT);
    if (outcome == PCRE2_ERROR_NOMATCH) return {};
    if (outcome < 0) return pattern_error(pattern_, "fails on this text: " + pcre2_message(outcome));
    if (range[0] == range[1] && range[1] == last_end) {
      ++from;
      while (from < text.size() && (static_cast<unsigned char>(text[from]) & 0xc0) == 0x80) ++from;
      continue;
    }
    to.push_back({range[0], range[1]});
    from = last_end = range[1];
  }
  return {};
}

} // namespace engine
