#include "bpe.hpp"

#include "byte_alphabet.hpp"
#include "json_members.hpp"

#include <algorithm>

namespace engine {
namespace {

using nlohmann::json;
using sinq::errc;
using sinq::make_error;
using sinq::result;

std::uint64_t pair_key(int left, int right) {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

/// A merge is two strings or, in older files, one with a space between.
result<std::pair<std::string, std::string>> read_merge(const json& entry) {
  if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string())
    return std::pair{entry[0].get<std::string>(), entry[1].get<std::string>()};
  if (entry.is_string()) {
    const auto& text = entry.get_ref<const std::string&>();
    const std::size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos)
      return std::pair{text.substr(0, space), text.substr(space + 1)};
  }
  return make_error(errc::malformed, "is not two tokens");
}

} // namespace

result<bpe> bpe::read(const json& model) {
  bpe made;
  auto ok = check_options(model);
  if (ok) ok = made.read_vocabulary(model);
  if (ok) ok = made.read_bytes(model);
  if (ok) ok = made.read_merges(model);
  if (ok) {
    const auto ignore = flag_of(model, "ignore_merges", false);
    if (ignore)
      made.ignore_merges_ = *ignore;
    else
      ok = ignore.error();
  }
  if (!ok) return std::move(ok).error().in("model");
  return made;
}

result<void> bpe::check_options(const json& model) {
  const auto type = text_of(model, "type");
  if (!type) return type.error();
  if (*type != "BPE") return unsupported_type(*type, "BPE");
  for (const auto& [name, neutral] :
       {std::pair{"continuing_subword_prefix", json("")}, std::pair{"end_of_word_suffix", json("")},
        std::pair{"dropout", json(0)}, std::pair{"byte_fallback", json(false)}})
    if (model.contains(name) && !model[name].is_null() && model[name] != neutral)
      return make_error(errc::unsupported, name, " is ", sinq::io::in_quotes(model[name].dump()), ", expected ",
                        neutral.dump());
  return {};
}

result<void> bpe::read_vocabulary(const json& model) {
  const auto vocabulary = member_of(model, "vocab");
  if (!vocabulary) return vocabulary.error();
  if (!(*vocabulary)->is_object() || (*vocabulary)->empty())
    return make_error(errc::malformed, "vocab is ", (*vocabulary)->is_object() ? "empty" : (*vocabulary)->type_name(),
                      ", expected an object of tokens");
  std::vector<bool> taken(max_token_count);
  vocabulary_.reserve((*vocabulary)->size());
  for (const auto& [token, number] : (*vocabulary)->items()) {
    if (!number.is_number_unsigned() || number.get<std::uint64_t>() >= max_token_count)
      return make_error(errc::malformed, "vocab: ", sinq::io::in_quotes(token), " has the number ",
                        sinq::io::in_quotes(number.dump()), ", expected 0 to ", max_token_count - 1);
    const int id = number.get<int>();
    if (taken[static_cast<std::size_t>(id)])
      return make_error(errc::malformed, "vocab: ", sinq::io::in_quotes(token), " has the number ", id,
                        ", which another token has");
    taken[static_cast<std::size_t>(id)] = true;
    vocabulary_.emplace(token, id);
  }
  return {};
}

result<void> bpe::read_bytes(const json& model) {
  std::optional<int> unknown;
  if (model.contains("unk_token") && !model["unk_token"].is_null()) {
    const auto token = text_of(model, "unk_token");
    if (!token) return token.error();
    const auto found = vocabulary_.find(*token);
    if (found == vocabulary_.end())
      return make_error(errc::malformed, "unk_token is ", sinq::io::in_quotes(*token), ", which vocab has not");
    unknown = found->second;
  }
  const auto fuse = flag_of(model, "fuse_unk", false);
  if (!fuse) return fuse.error();
  for (std::size_t b = 0; b < bytes_.size(); ++b) {
    const char byte = static_cast<char>(b);
    const auto found = vocabulary_.find(spell_bytes({&byte, 1}));
    bytes_[b] = found == vocabulary_.end() ? unknown : found->second;
    if (found == vocabulary_.end() && unknown && *fuse)
      return make_error(errc::unsupported, "fuse_unk is true and vocab lacks bytes");
  }
  return {};
}

result<void> bpe::read_merges(const json& model) {
  const auto list = list_of(model, "merges");
  if (!list) return list.error();
  merges_.reserve((*list)->size());
  std::uint32_t rank = 0;
  for (std::size_t i = 0; i < (*list)->size(); ++i) {
    const json& entry = (**list)[i];
    if (entry.is_string() && entry.get_ref<const std::string&>().starts_with("#version")) continue;
    const auto pair = read_merge(entry);
    const auto ok = pair ? add_merge(rank++, pair->first, pair->second) : result<void>{pair.error()};
    if (!ok) return sinq::error{ok.error()}.in("merges[" + std::to_string(i) + "]");
  }
  return {};
}

result<void> bpe::add_merge(std::uint32_t rank, const std::string& left, const std::string& right) {
  std::array<int, 3> tokens{};
  const std::array<std::string, 3> texts{left, right, left + right};
  for (std::size_t k = 0; k < tokens.size(); ++k) {
    const auto found = vocabulary_.find(texts[k]);
    if (found == vocabulary_.end())
      return make_error(errc::malformed, "has the token ", sinq::io::in_quotes(texts[k]), ", which vocab has not");
    tokens[k] = found->second;
  }
  merges_.insert_or_assign(pair_key(tokens[0], tokens[1]), merge{rank, tokens[2]});
  return {};
}

std::optional<bpe::merge> bpe::merge_of(int left, int right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? std::nullopt : std::optional{found->second};
}

std::optional<int> bpe::whole_word(std::string_view word) const {
  if (!ignore_merges_) return std::nullopt;
  const auto found = vocabulary_.find(spell_bytes(word));
  return found == vocabulary_.end() ? std::nullopt : std::optional{found->second};
}

void word_encoder::add(std::string_view word) {
  const std::size_t begin = to_.size();
  const auto [known, is_new] = known_.try_emplace(word, begin, begin);
  auto& [first, last] = known->second;
  if (is_new) {
    encode(word);
    last = to_.size();
  } else {
    for (std::size_t i = first; i < last; ++i) to_.push_back(to_[i]);
  }
}

void word_encoder::encode(std::string_view word) {
  if (const auto whole = model_.whole_word(word)) return to_.push_back(*whole);
  symbols_.clear();
  for (const char byte : word) {
    const auto token = model_.token_of(static_cast<unsigned char>(byte));
    if (!token) continue;
    const int at = static_cast<int>(symbols_.size());
    if (at > 0) symbols_.back().next = at;
    symbols_.push_back({*token, at - 1, -1});
  }
  if (symbols_.empty()) return;
  merge_symbols();
  for (int at = 0; at != -1; at = symbols_[static_cast<std::size_t>(at)].next)
    to_.push_back(symbols_[static_cast<std::size_t>(at)].token);
}

namespace {

/// Of two candidates, whether the first is merged later.
constexpr auto later = [](const auto& a, const auto& b) {
  return a.merge.rank != b.merge.rank ? a.merge.rank > b.merge.rank : a.at > b.at;
};

} // namespace

void word_encoder::propose(int at) {
  const symbol& left = symbols_[static_cast<std::size_t>(at)];
  if (left.next == -1) return;
  const symbol& right = symbols_[static_cast<std::size_t>(left.next)];
  const auto merge = model_.merge_of(left.token, right.token);
  if (!merge) return;
  queue_.push_back({*merge, at, left.token, right.token});
  std::push_heap(queue_.begin(), queue_.end(), later);
}

bool word_encoder::stale(const candidate& c) const {
  const symbol& left = symbols_[static_cast<std::size_t>(c.at)];
  return left.token != c.left || left.next == -1 || symbols_[static_cast<std::size_t>(left.next)].token != c.right;
}

void word_encoder::merge_symbols() {
  constexpr int gone = -1;
  for (int at = 0; at + 1 < static_cast<int>(symbols_.size()); ++at) propose(at);
  while (!queue_.empty()) {
    std::pop_heap(queue_.begin(), queue_.end(), later);
    const candidate best = queue_.back();
    queue_.pop_back();
    if (stale(best)) continue;
    symbol& left = symbols_[static_cast<std::size_t>(best.at)];
    symbol& right = symbols_[static_cast<std::size_t>(left.next)];
    left.token = best.merge.token;
    left.next = right.next;
    right.token = gone;
    if (left.next != -1) symbols_[static_cast<std::size_t>(left.next)].previous = best.at;
    if (left.previous != -1) propose(left.previous);
    propose(best.at);
  }
}

} // namespace engine
