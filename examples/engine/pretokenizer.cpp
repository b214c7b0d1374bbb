#include "pretokenizer.hpp"

#include "json_members.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace engine {
namespace {

using nlohmann::json;
using sinq::errc;
using sinq::make_error;
using sinq::result;

/// GPT-2's words: contractions, and letters, digits or other signs with the space before them.
constexpr std::string_view gpt2_words = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

} // namespace

result<pretokenizer> pretokenizer::read(const json& component) {
  pretokenizer made;
  auto ok = component.is_null() ? result<void>{} : made.add(component);
  if (ok && !made.byte_level_) ok = make_error(errc::unsupported, "has no ByteLevel");
  if (!ok) return std::move(ok).error().in("pre_tokenizer");
  return made;
}

result<void> pretokenizer::add(const json& component) {
  const auto type = text_of(component, "type");
  if (!type) return type.error();
  if (*type == "Sequence")
    return for_each_part(component, "pretokenizers", [this](const json& part) { return add(part); });
  if (byte_level_) return make_error(errc::unsupported, "has ", sinq::io::in_quotes(*type), " after ByteLevel");
  if (*type == "ByteLevel") return add_byte_level(component);
  if (*type == "Split") return add_split(component);
  if (*type == "Digits") return add_digits(component);
  return unsupported_type(*type, "ByteLevel, Split, Digits or Sequence");
}

result<void> pretokenizer::add_byte_level(const json& component) {
  const auto prefix_space = flag_of(component, "add_prefix_space");
  if (!prefix_space) return prefix_space.error();
  const auto use_regex = flag_of(component, "use_regex", true);
  if (!use_regex) return use_regex.error();
  byte_level_ = true;
  prefix_space_ = *prefix_space;
  if (!*use_regex) return {};
  auto pattern = regex::compile(gpt2_words);
  if (!pattern) return std::move(pattern).error();
  of_byte_level_.push_back({std::move(*pattern), behavior::isolated, false});
  return {};
}

result<void> pretokenizer::add_split(const json& component) {
  const auto on_match = read_behavior(component);
  if (!on_match) return on_match.error();
  const auto invert = flag_of(component, "invert");
  if (!invert) return invert.error();
  const auto pattern = member_of(component, "pattern");
  if (!pattern) return pattern.error();
  const char* const kind = (*pattern)->is_object() && (*pattern)->contains("String") ? "String" : "Regex";
  const auto source = text_of(**pattern, kind);
  if (!source) return sinq::error{source.error()}.in("pattern");
  auto compiled = kind == std::string_view{"String"} ? regex::literal(*source) : regex::compile(*source);
  if (!compiled) return std::move(compiled).error();
  before_byte_level_.push_back({std::move(*compiled), *on_match, *invert});
  return {};
}

result<void> pretokenizer::add_digits(const json& component) {
  const auto individual = flag_of(component, "individual_digits");
  if (!individual) return individual.error();
  auto pattern = regex::compile(R"(\p{N})");
  if (!pattern) return std::move(pattern).error();
  before_byte_level_.push_back({std::move(*pattern), *individual ? behavior::isolated : behavior::contiguous, false});
  return {};
}

result<pretokenizer::behavior> pretokenizer::read_behavior(const json& component) {
  using entry = std::pair<std::string_view, behavior>;
  static constexpr std::array<entry, 5> behaviors{entry{"Isolated", behavior::isolated},
                                                  {"Removed", behavior::removed},
                                                  {"Contiguous", behavior::contiguous},
                                                  {"MergedWithPrevious", behavior::merged_with_previous},
                                                  {"MergedWithNext", behavior::merged_with_next}};
  const auto name = text_of(component, "behavior");
  if (!name) return name.error();
  for (const auto& [known, value] : behaviors)
    if (*name == known) return value;
  return make_error(errc::unsupported, "has the behavior ", sinq::io::in_quotes(*name),
                    ", expected Isolated, Removed, Contiguous, MergedWithPrevious or MergedWithNext");
}

result<std::vector<pretokenizer::piece>> pretokenizer::pieces_of(std::string_view text, const split_step& step) {
  std::vector<text_range> matches;
  if (auto ok = step.pattern.find_all(text, matches); !ok) return std::move(ok).error();
  std::vector<piece> pieces;
  pieces.reserve(matches.size());
  std::size_t end = 0;
  for (const text_range& match : matches) {
    if (end != match.begin) pieces.push_back({{end, match.begin}, step.invert});
    pieces.push_back({match, !step.invert});
    end = match.end;
  }
  if (end != text.size()) pieces.push_back({{end, text.size()}, step.invert});
  return pieces;
}

std::vector<pretokenizer::piece> pretokenizer::merged(const std::vector<piece>& pieces, behavior on_match) {
  std::vector<piece> merged;
  const bool backwards = on_match == behavior::merged_with_next;
  bool previous = false;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const piece& next = pieces[backwards ? pieces.size() - 1 - i : i];
    const bool joins = on_match == behavior::contiguous ? next.match == previous : next.match && !previous;
    previous = next.match;
    if (!joins || merged.empty())
      merged.push_back(next);
    else if (backwards)
      merged.back().range.begin = next.range.begin;
    else
      merged.back().range.end = next.range.end;
  }
  if (backwards) std::reverse(merged.begin(), merged.end());
  return merged;
}

result<std::vector<std::string_view>> pretokenizer::words(std::string_view text, std::deque<std::string>& kept) const {
  std::vector<std::string_view> words{text};
  const auto cut_by = [&words](const split_step& step) -> result<void> {
    std::vector<std::string_view> cut;
    for (const std::string_view word : words) {
      auto pieces = pieces_of(word, step);
      if (!pieces) return std::move(pieces).error();
      const bool merges = step.on_match != behavior::isolated && step.on_match != behavior::removed;
      if (merges) *pieces = merged(*pieces, step.on_match);
      for (const auto& [range, match] : *pieces) {
        const bool removed = match && step.on_match == behavior::removed;
        if (!removed && range.begin != range.end) cut.push_back(word.substr(range.begin, range.end - range.begin));
      }
    }
    words = std::move(cut);
    return {};
  };
  for (const split_step& step : before_byte_level_)
    if (auto ok = cut_by(step); !ok) return std::move(ok).error();
  if (prefix_space_)
    for (std::string_view& word : words)
      if (!word.starts_with(' ')) word = kept.emplace_back(std::string{' '} + std::string{word});
  for (const split_step& step : of_byte_level_)
    if (auto ok = cut_by(step); !ok) return std::move(ok).error();
  return words;
}

} // namespace engine
