#pragma once

#include "model.hpp"
#include "tokenizer.hpp"

namespace engine {

/// A question as tokens: a context, and the ways to go on with it.
struct question_tokens {
  std::vector<int> context;
  std::vector<std::vector<int>> choices;

  /// Of the context with its longest choice.
  [[nodiscard]] std::size_t longest() const;
};

/// The tokens of a question: those that the tokenizer puts before a text, the context's without the white space at its
/// end, and for each choice what the tokens of context + choice have beyond the first context.size().
/// @param choices  with what stands between them and the context. @pre UTF-8
/// @errors  errc::invalid_argument (a context without tokens, a choice that adds none: names it), those of
///          tokenizer::encode
/// Source: lm-evaluation-harness lm_eval/api/model.py, _encode_pair.
[[nodiscard]] sinq::result<question_tokens> encode_question(const tokenizer& tokenizer, std::string_view context,
                                                            std::span<const std::string> choices);

/// Scores the choices of questions, one question after the other; a context runs once for all its choices.
class choice_scorer {
public:
  /// @param longest  question_tokens::longest() of the longest question. @pre m outlives the scorer
  choice_scorer(const model& m, std::size_t longest);

  /// log p(choice | context) of each choice, in nats: the sum over its tokens, in f64.
  /// @errors  those of model::forward
  [[nodiscard]] sinq::result<std::vector<double>> operator()(const question_tokens& question);

private:
  /// log p of a choice's tokens but the first.
  [[nodiscard]] sinq::result<double> score_rest(std::span<const int> choice);

  const model& m_;
  kv_cache cache_;
  float_buffer first_, some_; ///< log p of what follows the context, and some tokens of a choice
};

} // namespace engine
