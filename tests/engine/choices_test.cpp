#include "engine/choices.hpp"
#include "engine/likelihood.hpp"

#include "engine/golden_models.hpp"
#include "engine/tokenizer_files.hpp"

#include <numeric>

namespace {

using engine::question_tokens;
using sinq_test::check_error;
using sinq_test::require_ok;
using sinq_test::value_of;

std::vector<int> joined(std::vector<int> first, const std::vector<int>& then) {
  first.insert(first.end(), then.begin(), then.end());
  return first;
}

/// log p(choice | context) from the logits of the whole, in one piece.
double score_of(const engine::model& m, const std::vector<int>& context, const std::vector<int>& choice) {
  const std::vector<int> whole = joined(context, choice);
  engine::float_buffer log_p{whole.size() - 1, m.config().vocabulary};
  require_ok(engine::log_probabilities(m, whole, log_p));
  const std::vector<double> nll = engine::negative_log_likelihood(log_p, whole);
  return -std::accumulate(nll.begin() + static_cast<std::ptrdiff_t>(context.size() - 1), nll.end(), 0.0);
}

/// Logits that are computed in other pieces may be 2e-5 off, as in model_test.cpp, and log p twice that.
double tolerance(const std::vector<int>& choice) {
  return 4e-5 * static_cast<double>(choice.size());
}

question_tokens some_question() {
  question_tokens question{{5, 40, 13, 77}, {{2}, {9, 31, 8}, {1, 1, 62, 8, 50}, {}}};
  for (int n = 0; n < 100; ++n) question.choices.back().push_back(n * 37 % 96);
  return question;
}

} // namespace

TEST_CASE("choices have the likelihoods that they have with their context in one piece") {
  for (const std::string name : {"llama", "mistral", "qwen2", "qwen3"}) {
    CAPTURE(name);
    const auto m = value_of(engine::model::open(sinq_test::golden_model(name)));
    const question_tokens question = some_question();
    CHECK(question.longest() == 104);
    engine::choice_scorer scores_of{m, question.longest()};
    const auto scores = value_of(scores_of(question));
    REQUIRE(scores.size() == 4);
    for (std::size_t n = 0; n < 4; ++n) {
      CAPTURE(n);
      const std::vector<int>& choice = question.choices[n];
      CHECK(std::fabs(scores[n] - score_of(m, question.context, choice)) < tolerance(choice));
      // planted bugs: a cache that has lost a token of the context, or keeps one of the choice before
      CHECK(std::fabs(scores[n] - score_of(m, {5, 40, 13}, choice)) > 10 * tolerance(choice));
      CHECK(std::fabs(scores[n] - score_of(m, {5, 40, 13, 77, 2}, choice)) > 10 * tolerance(choice));
    }
    const question_tokens other{{3, 3, 50}, {{7, 7}, {1}}};
    CHECK(std::fabs(value_of(scores_of(other))[1] - score_of(m, {3, 3, 50}, {1})) < tolerance({1}));
    CHECK(value_of(scores_of(question)) == scores);
    check_error(scores_of({{3}, {{1, 96}}}), sinq::errc::invalid_argument, {"token 96"});
    check_error(scores_of({{96}, {{1}}}), sinq::errc::invalid_argument, {"token 96"});
    CHECK(value_of(scores_of(question)) == scores);
  }
}

TEST_CASE("the white space at a context's end counts to the choices, and the tokens of both are those of the whole") {
  const auto gpt2 = value_of(engine::tokenizer::open(sinq_test::tokenizer_path("gpt2.json")));
  const auto llama3 = value_of(engine::tokenizer::open(sinq_test::tokenizer_path("llama3.json")));
  const std::vector<std::string> choices{" the theme", "other", "."};
  for (const engine::tokenizer* const tokens : {&gpt2, &llama3})
    for (const std::string context : {"the mother of the", "there, then ", "weather \n\u3000"}) {
      CAPTURE(context);
      const auto question = value_of(engine::encode_question(*tokens, context, choices));
      const std::string before = context.substr(0, context.find_last_not_of(" \n\u3000") + 1);
      CHECK(question.context == value_of(tokens->encode(before)));
      REQUIRE(question.choices.size() == 3);
      for (std::size_t n = 0; n < 3; ++n)
        CHECK(joined(question.context, question.choices[n]) == value_of(tokens->encode(context + choices[n])));
    }
  // planted bug: a context that keeps its space has other tokens
  const auto question = value_of(engine::encode_question(gpt2, "there, then ", choices));
  CHECK(question.context != value_of(gpt2.encode("there, then ")));
  CHECK(question.choices[1] != value_of(gpt2.encode("other")));
}

TEST_CASE("a context without tokens and a choice that adds none are refused") {
  const auto gpt2 = value_of(engine::tokenizer::open(sinq_test::tokenizer_path("gpt2.json")));
  const std::vector<std::string> choices{" theme", ""}, melting{" b", "a"};
  check_error(engine::encode_question(gpt2, " \n ", choices), sinq::errc::invalid_argument,
              {"the context has no tokens"});
  check_error(engine::encode_question(gpt2, "a", choices), sinq::errc::invalid_argument, {"choice 1 adds no tokens"});
  check_error(engine::encode_question(gpt2, "a", melting), sinq::errc::invalid_argument, {"choice 1 adds no tokens"});
}
