#include "calibration_texts.hpp"

#include <engine/calibration.hpp>

#include <algorithm>
#include <random>

namespace sinq_cli {

namespace {

using token_texts = std::vector<std::vector<int>>;

/// Tokens that a text may have: those that are not special, of the first `share` of the vocabulary, whose tokens are in
/// the order of how common they are.
std::vector<int> ordinary_tokens(const engine::model& model, const engine::tokenizer& tokenizer, double share) {
  const std::size_t known = std::min(model.config().vocabulary, tokenizer.size());
  const auto end = static_cast<std::size_t>(share * static_cast<double>(known));
  std::vector<int> tokens;
  for (std::size_t token = 0; token < end; ++token)
    if (!tokenizer.is_special(static_cast<int>(token)) && !tokenizer.bytes_of(static_cast<int>(token)).empty())
      tokens.push_back(static_cast<int>(token));
  return tokens;
}

/// Texts of tokens drawn from these.
sinq::result<token_texts> drawn(const std::vector<int>& from, std::size_t count, std::size_t length,
                                std::uint64_t seed) {
  if (from.empty()) return sinq::make_error(sinq::errc::invalid_argument, "the tokenizer has no ordinary tokens");
  std::mt19937_64 random{seed};
  token_texts made(count, std::vector<int>(length));
  for (std::vector<int>& text : made)
    for (int& token : text) token = from[random() % from.size()];
  return made;
}

} // namespace

sinq::result<token_texts> random_texts(const engine::model& model, const engine::tokenizer& tokenizer,
                                       std::size_t tokens, std::size_t length, std::uint64_t seed) {
  return drawn(ordinary_tokens(model, tokenizer, 1), (tokens + length - 1) / length, length, seed);
}

sinq::result<token_texts> own_texts(const engine::model& model, const engine::tokenizer& tokenizer, std::size_t tokens,
                                    std::uint64_t seed, const sinq::progress_callback& progress) {
  constexpr double common = 0.4;
  constexpr std::size_t length = 256;
  const auto first = drawn(ordinary_tokens(model, tokenizer, common), (tokens + length - 1) / length, 1, seed);
  if (!first) return first.error();
  std::vector<int> begin;
  for (const std::vector<int>& text : *first) begin.push_back(text.front());
  return engine::own_texts(model, begin, length, seed, progress);
}

} // namespace sinq_cli
