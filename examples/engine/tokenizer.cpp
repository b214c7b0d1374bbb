#include "tokenizer.hpp"

#include "byte_alphabet.hpp"
#include "json_members.hpp"
#include "unicode.hpp"

#include <algorithm>
#include <utility>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace engine {
namespace {

using nlohmann::json;
using sinq::errc;
using sinq::make_error;
using sinq::result;

/// Whether the `normalizer` is NFC, rather than none.
result<void> read_normalizer(const json& component, bool& nfc) {
  if (component.is_null()) return {};
  const auto type = text_of(component, "type");
  if (!type) return type.error();
  if (*type == "Sequence")
    return for_each_part(component, "normalizers", [&](const json& part) { return read_normalizer(part, nfc); });
  if (*type != "NFC") return unsupported_type(*type, "NFC or Sequence");
  nfc = true;
  return {};
}

/// Checks that the `decoder` is ByteLevel, alone or in a Sequence.
result<void> check_decoder(const json& component) {
  const auto type = component.is_null() ? result<std::string>{"null"} : text_of(component, "type");
  if (!type) return type.error();
  if (*type == "ByteLevel") return {};
  if (*type != "Sequence") return unsupported_type(*type, "ByteLevel or Sequence");
  const auto parts = list_of(component, "decoders");
  if (!parts) return parts.error();
  if ((*parts)->size() != 1)
    return make_error(errc::unsupported, "has ", (*parts)->size(), " parts, expected ByteLevel");
  return check_decoder((**parts)[0]);
}

/// A component of the document, null where there is none.
const json& component_of(const json& document, const char* name) {
  static const json none;
  return document.contains(name) ? document[name] : none;
}

} // namespace

result<tokenizer> tokenizer::open(const std::filesystem::path& directory_or_file) {
  std::error_code ignored;
  const bool directory = std::filesystem::is_directory(directory_or_file, ignored);
  const std::filesystem::path path = directory ? directory_or_file / "tokenizer.json" : directory_or_file;
  result<tokenizer> made = [&]() -> result<tokenizer> {
    const auto document = sinq::io::load_json_object(path);
    if (!document) return document.error();
    auto read_one = read(*document);
    return read_one ? std::move(read_one) : std::move(read_one).error().in(path.string());
  }();
#ifdef __GLIBC__
  malloc_trim(0); // the document was many small parts, which glibc keeps
#endif
  return made;
}

tokenizer::tokenizer(bpe model, pretokenizer words, bool nfc)
    : model_{std::move(model)}, words_{std::move(words)}, nfc_{nfc} {}

result<tokenizer> tokenizer::read(const json& document) {
  bool nfc = false;
  if (auto ok = read_normalizer(component_of(document, "normalizer"), nfc); !ok)
    return std::move(ok).error().in("normalizer");
  auto words = pretokenizer::read(component_of(document, "pre_tokenizer"));
  if (!words) return std::move(words).error();
  if (auto ok = check_decoder(component_of(document, "decoder")); !ok) return std::move(ok).error().in("decoder");
  auto model = bpe::read(component_of(document, "model"));
  if (!model) return std::move(model).error();
  auto added = read_added_tokens(document);
  if (!added) return std::move(added).error();
  tokenizer made{std::move(*model), std::move(*words), nfc};
  if (auto ok = made.add_tokens(*added); !ok) return std::move(ok).error().in("added_tokens");
  if (auto ok = made.read_post_processor(component_of(document, "post_processor")); !ok)
    return std::move(ok).error().in("post_processor");
  return made;
}

tokenizer::entry& tokenizer::entry_of(int token) {
  const auto index = static_cast<std::size_t>(token);
  if (index >= tokens_.size()) tokens_.resize(index + 1);
  return tokens_[index];
}

result<void> tokenizer::add_tokens(const std::vector<added_token>& added) {
  const auto name = [this](int token, const std::string& spelling, bool special) {
    entry_of(token) = {spelled_bytes(spelling).value_or(spelling), true, special};
  };
  for (const auto& [spelling, id] : model_.vocabulary()) name(id, spelling, false);
  std::vector<added_token> raw, normalized;
  for (const added_token& token : added) {
    const auto here = find(token.content);
    if (here && *here != token.id)
      return make_error(errc::malformed, sinq::io::in_quotes(token.content), " has the number ", token.id, " and ",
                        *here);
    if (added_.contains(token.content))
      return make_error(errc::malformed, sinq::io::in_quotes(token.content), " is there twice");
    if (!here && entry_of(token.id).taken)
      return make_error(errc::malformed, sinq::io::in_quotes(token.content), " has the number ", token.id,
                        ", which another token has");
    added_.emplace(token.content, token.id);
    std::vector<added_token>& to = token.normalized ? normalized : raw;
    to.push_back(token);
    if (token.normalized && nfc_) to.back().content = to_nfc(token.content);
    name(token.id, to.back().content, token.special);
  }
  before_normalizing_ = token_finder{std::move(raw)};
  after_normalizing_ = token_finder{std::move(normalized)};
  return {};
}

result<void> tokenizer::read_post_processor(const json& component) {
  if (component.is_null()) return {};
  const auto type = text_of(component, "type");
  if (!type) return type.error();
  if (*type == "ByteLevel") return {};
  if (*type == "TemplateProcessing") return read_template(component);
  if (*type != "Sequence") return unsupported_type(*type, "ByteLevel, TemplateProcessing or Sequence");
  return for_each_part(component, "processors", [this](const json& part) { return read_post_processor(part); });
}

result<void> tokenizer::read_template(const json& component) {
  if (has_template_) return make_error(errc::unsupported, "has more than one TemplateProcessing");
  has_template_ = true;
  const auto pieces = list_of(component, "single");
  if (!pieces) return pieces.error();
  bool inside = false;
  for (const json& piece : **pieces) {
    const bool text = piece.is_object() && piece.contains("Sequence");
    const auto of = member_of(piece, text ? "Sequence" : "SpecialToken");
    const auto name = of ? text_of(**of, "id") : result<std::string>{of.error()};
    if (!name) return sinq::error{name.error()}.in("single");
    if (text) {
      if (inside || *name != "A") return make_error(errc::unsupported, "single has another sequence than one A");
      inside = true;
      continue;
    }
    const auto tokens = template_tokens(component, *name);
    if (!tokens) return tokens.error();
    std::vector<int>& to = inside ? suffix_ : prefix_;
    to.insert(to.end(), tokens->begin(), tokens->end());
  }
  if (!inside) return make_error(errc::unsupported, "single has no sequence A");
  return {};
}

result<std::vector<int>> tokenizer::template_tokens(const json& component, const std::string& name) const {
  const auto known = member_of(component, "special_tokens");
  const auto token = known ? member_of(**known, name.c_str()) : known;
  const auto ids = token ? list_of(**token, "ids") : token;
  if (!ids) return sinq::error{ids.error()}.in("special_tokens: " + sinq::io::in_quotes(name));
  std::vector<int> tokens;
  for (const json& id : **ids) {
    const auto number = id.is_number_unsigned() ? id.get<std::uint64_t>() : tokens_.size();
    if (number >= tokens_.size() || !tokens_[number].taken)
      return make_error(errc::malformed, "special_tokens: ", sinq::io::in_quotes(name), " has the id ",
                        sinq::io::in_quotes(id.dump()), ", expected the number of a token");
    tokens.push_back(static_cast<int>(number));
  }
  return tokens;
}

result<std::vector<int>> tokenizer::encode(std::string_view text, bool special) const {
  const std::string whole = replace_broken_utf8(text);
  std::deque<std::string> kept;
  std::vector<int> tokens;
  if (special) tokens = prefix_;
  word_encoder encoder{model_, tokens};
  for (const auto& [outer, token] : before_normalizing_.parts(whole)) {
    if (token != nullptr) {
      tokens.push_back(token->id);
      continue;
    }
    const std::string_view normal = nfc_ ? std::string_view{kept.emplace_back(to_nfc(outer))} : outer;
    for (const auto& [inner, normal_token] : after_normalizing_.parts(normal)) {
      if (normal_token != nullptr)
        tokens.push_back(normal_token->id);
      else if (auto ok = encode_plain(inner, encoder, kept); !ok)
        return std::move(ok).error();
    }
  }
  if (special) tokens.insert(tokens.end(), suffix_.begin(), suffix_.end());
  return tokens;
}

result<void> tokenizer::encode_plain(std::string_view text, word_encoder& encoder,
                                     std::deque<std::string>& kept) const {
  const auto words = words_.words(text, kept);
  if (!words) return words.error();
  for (const std::string_view word : *words) encoder.add(word);
  return {};
}

std::string tokenizer::decode(std::span<const int> tokens, bool skip_special) const {
  std::string bytes;
  for (const int token : tokens)
    if (!skip_special || !is_special(token)) bytes += bytes_of(token);
  return replace_broken_utf8(bytes);
}

std::string_view tokenizer::bytes_of(int token) const {
  const bool known = token >= 0 && static_cast<std::size_t>(token) < tokens_.size();
  return known ? std::string_view{tokens_[static_cast<std::size_t>(token)].bytes} : std::string_view{};
}

bool tokenizer::is_special(int token) const {
  return token >= 0 && static_cast<std::size_t>(token) < tokens_.size() &&
         tokens_[static_cast<std::size_t>(token)].special;
}

std::optional<int> tokenizer::find(std::string_view token) const {
  if (const auto found = added_.find(token); found != added_.end()) return found->second;
  const auto found = model_.vocabulary().find(token);
  return found == model_.vocabulary().end() ? std::nullopt : std::optional{found->second};
}

std::string text_stream::push(int token) {
  if (!skip_special_ || !tokens_->is_special(token)) held_ += tokens_->bytes_of(token);
  const std::size_t whole = held_.size() - cut_utf8(held_);
  std::string text = replace_broken_utf8(std::string_view{held_}.substr(0, whole));
  held_.erase(0, whole);
  return text;
}

std::string text_stream::finish() {
  return replace_broken_utf8(std::exchange(held_, {}));
}

} // namespace engine
