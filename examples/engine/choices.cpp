#include "choices.hpp"

#include "likelihood.hpp"
#include "unicode.hpp"

#include <algorithm>

namespace engine {
namespace {

using sinq::errc;
using sinq::make_error;
using sinq::matrix_view;
using sinq::result;

/// Tokens of a choice whose logits are in memory together.
constexpr std::size_t scored_at_once = 64;

} // namespace

std::size_t question_tokens::longest() const {
  std::size_t most = 0;
  for (const std::vector<int>& choice : choices) most = std::max(most, choice.size());
  return context.size() + most;
}

result<question_tokens> encode_question(const tokenizer& tokenizer, std::string_view context,
                                        std::span<const std::string> choices) {
  const std::string_view before = context.substr(0, context.size() - spaces_at_end(context));
  const auto tokens = tokenizer.encode(before, false);
  if (!tokens) return tokens.error();
  question_tokens question;
  question.context.assign(tokenizer.prefix().begin(), tokenizer.prefix().end());
  question.context.insert(question.context.end(), tokens->begin(), tokens->end());
  if (question.context.empty()) return make_error(errc::invalid_argument, "the context has no tokens");
  for (std::size_t n = 0; n < choices.size(); ++n) {
    const auto whole = tokenizer.encode(std::string{context} + choices[n], false);
    if (!whole) return whole.error();
    if (whole->size() <= tokens->size())
      return make_error(errc::invalid_argument, "choice ", n, " adds no tokens to the context");
    question.choices.emplace_back(whole->begin() + static_cast<std::ptrdiff_t>(tokens->size()), whole->end());
  }
  return question;
}

choice_scorer::choice_scorer(const model& m, std::size_t longest)
    : m_{m}, cache_{m.config(), longest, sinq::dtype::f32}, first_{1, m.config().vocabulary},
      some_{scored_at_once, m.config().vocabulary} {}

result<std::vector<double>> choice_scorer::operator()(const question_tokens& question) {
  for (const std::vector<int>& choice : question.choices)
    if (auto ok = m_.check(choice); !ok) return std::move(ok).error();
  cache_.resize(0);
  const matrix_view<float> first = first_;
  if (auto ok = m_.forward(question.context, cache_, first); !ok) return std::move(ok).error();
  log_softmax(first, *m_.with().threads);
  std::vector<double> scores;
  for (const std::vector<int>& choice : question.choices) {
    const auto rest = score_rest(choice);
    if (!rest) return rest.error();
    scores.push_back(double{first(0, static_cast<std::size_t>(choice.front()))} + *rest);
    cache_.resize(question.context.size());
  }
  return scores;
}

result<double> choice_scorer::score_rest(std::span<const int> choice) {
  double sum = 0;
  for (std::size_t begin = 0; begin + 1 < choice.size(); begin += scored_at_once) {
    const std::size_t count = std::min(scored_at_once, choice.size() - 1 - begin);
    const matrix_view<float> log_p = matrix_view<float>{some_}.block(0, 0, count, m_.config().vocabulary);
    if (auto ok = m_.forward(choice.subspan(begin, count), cache_, log_p); !ok) return std::move(ok).error();
    log_softmax(log_p, *m_.with().threads);
    for (const double nll : negative_log_likelihood(log_p, choice.subspan(begin, count + 1))) sum -= nll;
  }
  return sum;
}

} // namespace engine
