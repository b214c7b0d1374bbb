#include "added_tokens.hpp"

#include "bpe.hpp"
#include "json_members.hpp"
#include "unicode.hpp"

#include <algorithm>

namespace engine {
namespace {

using nlohmann::json;
using sinq::errc;
using sinq::make_error;
using sinq::result;

result<added_token> read_added_token(const json& entry) {
  added_token token;
  const auto id = member_of(entry, "id");
  if (!id) return id.error();
  if (!(*id)->is_number_unsigned() || (*id)->get<std::uint64_t>() >= max_token_count)
    return make_error(errc::malformed, "id is ", sinq::io::in_quotes((*id)->dump()), ", expected 0 to ",
                      max_token_count - 1);
  token.id = (*id)->get<int>();
  auto content = text_of(entry, "content");
  if (!content) return content.error();
  if (content->empty()) return make_error(errc::malformed, "content is empty");
  token.content = std::move(*content);
  for (const auto& [name, to] : {std::pair{"special", &token.special}, std::pair{"single_word", &token.single_word},
                                 std::pair{"lstrip", &token.lstrip}, std::pair{"rstrip", &token.rstrip},
                                 std::pair{"normalized", &token.normalized}}) {
    const auto flag = flag_of(entry, name);
    if (!flag) return flag.error();
    *to = *flag;
  }
  return token;
}

bool starts_with_byte_below(const added_token& token, std::size_t byte) {
  return static_cast<unsigned char>(token.content[0]) < byte;
}

} // namespace

result<std::vector<added_token>> read_added_tokens(const json& document) {
  std::vector<added_token> tokens;
  if (!document.contains("added_tokens") || document["added_tokens"].is_null()) return tokens;
  const auto list = list_of(document, "added_tokens");
  if (!list) return list.error();
  for (std::size_t i = 0; i < (*list)->size(); ++i) {
    auto token = read_added_token((**list)[i]);
    if (!token) return std::move(token).error().in("added_tokens[" + std::to_string(i) + "]");
    tokens.push_back(std::move(*token));
  }
  return tokens;
}

token_finder::token_finder(std::vector<added_token> tokens) : tokens_{std::move(tokens)} {
  std::stable_sort(tokens_.begin(), tokens_.end(),
                   [](const added_token& a, const added_token& b) { return a.content < b.content; });
  for (std::size_t b = 0; b < first_.size(); ++b)
    first_[b] = static_cast<std::size_t>(std::lower_bound(tokens_.begin(), tokens_.end(), b, starts_with_byte_below) -
                                         tokens_.begin());
}

const added_token* token_finder::longest_at(std::string_view text) const {
  const std::size_t byte = static_cast<unsigned char>(text[0]);
  auto begin = tokens_.begin() + static_cast<std::ptrdiff_t>(first_[byte]);
  auto end = tokens_.begin() + static_cast<std::ptrdiff_t>(first_[byte + 1]);
  const added_token* longest = nullptr;
  // [begin, end) have the first `size` bytes of the text; the one that has no more stands first
  for (std::size_t size = 1; begin != end; ++size) {
    if (begin->content.size() == size) longest = &*begin;
    while (begin != end && begin->content.size() == size) ++begin;
    if (size == text.size()) break;
    const auto next = static_cast<unsigned char>(text[size]);
    const auto byte_after = [size](const added_token& t) { return static_cast<unsigned char>(t.content[size]); };
    begin = std::partition_point(begin, end, [&](const added_token& t) { return byte_after(t) < next; });
    end = std::partition_point(begin, end, [&](const added_token& t) { return byte_after(t) == next; });
  }
  return longest;
}

std::vector<token_finder::part> token_finder::parts(std::string_view text) const {
  std::vector<part> parts;
  std::size_t done = 0; // where the last part ends
  for (std::size_t at = 0; at < text.size();) {
    const added_token* const token = longest_at(text.substr(at));
    if (token == nullptr) {
      ++at;
      continue;
    }
    std::size_t begin = at;
    std::size_t end = at + token->content.size();
    at = end;
    if (token->single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) continue;
    if (token->lstrip) begin = std::max(done, begin - spaces_at_end(text.substr(0, begin)));
    if (token->rstrip) end += spaces_at_start(text.substr(end));
    if (done < begin) parts.push_back({text.substr(done, begin - done), nullptr});
    parts.push_back({text.substr(begin, end - begin), token});
    done = end;
  }
  if (done < text.size()) parts.push_back({text.substr(done), nullptr});
  return parts;
}

} // namespace engine
