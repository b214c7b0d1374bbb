#include "command.hpp"
#include "engine_flags.hpp"
#include "progress.hpp"
#include "questions.hpp"
#include "signals.hpp"

#include <engine/choices.hpp>
#include <engine/likelihood.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <memory>

namespace sinq_cli {

namespace {

struct score_flags {
  engine_flags engine;
  std::string model, questions, delimiter = " ";
  std::size_t limit = 0;
  bool quiet = false;
};

/// The error with file and line of the question before its sentence.
sinq::error of_question(sinq::error failure, const score_flags& f, const question& asked) {
  return std::move(failure).in(f.questions + ":" + std::to_string(asked.line));
}

sinq::result<engine::question_tokens> encode(const question& asked, const engine::tokenizer& tokenizer,
                                             const score_flags& f) {
  std::vector<std::string> choices;
  for (const std::string& choice : asked.choices) choices.push_back(f.delimiter + choice);
  auto tokens = engine::encode_question(tokenizer, asked.context, choices);
  if (!tokens) return of_question(std::move(tokens).error(), f, asked);
  return tokens;
}

/// Characters of a text, as Python counts them. @pre UTF-8
std::size_t characters(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

/// How many questions are answered rightly.
struct accuracy {
  engine::window_mean acc, acc_norm;

  void add(const question& asked, std::vector<double> scores) {
    const auto is_right = [&] {
      return std::max_element(scores.begin(), scores.end()) - scores.begin() == static_cast<std::ptrdiff_t>(asked.gold);
    };
    acc.add(is_right() ? 1.0 : 0.0);
    for (std::size_t n = 0; n < scores.size(); ++n) scores[n] /= static_cast<double>(characters(asked.choices[n]));
    acc_norm.add(is_right() ? 1.0 : 0.0);
  }
};

/// Checks that each question fits; the tokens of the longest.
sinq::result<std::size_t> check_lengths(const std::vector<question>& questions,
                                        const std::vector<engine::question_tokens>& tokens, std::size_t context,
                                        const score_flags& f) {
  std::size_t longest = 0;
  for (std::size_t n = 0; n < tokens.size(); ++n) {
    longest = std::max(longest, tokens[n].longest());
    if (longest > context)
      return of_question(sinq::make_error(sinq::errc::invalid_argument, "has ", longest,
                                          " tokens with its longest choice, more than the model's context of ",
                                          context),
                         f, questions[n]);
  }
  return longest;
}

sinq::result<void> score(const score_flags& f) {
  const auto tokenizer = engine::tokenizer::open(f.model);
  if (!tokenizer) return tokenizer.error();
  const auto questions = read_questions(f.questions, f.limit);
  if (!questions) return questions.error();
  std::vector<engine::question_tokens> tokens;
  for (const question& asked : *questions) {
    auto encoded = encode(asked, *tokenizer, f);
    if (!encoded) return std::move(encoded).error();
    tokens.push_back(*std::move(encoded));
  }
  sinq::thread_pool threads{f.engine.threads};
  const auto model = open_model(f.model, f.engine, threads);
  if (!model) return model.error();
  const auto longest = check_lengths(*questions, tokens, model->config().context, f);
  if (!longest) return longest.error();

  progress_bar progress{static_cast<double>(tokens.size()), f.quiet};
  engine::choice_scorer scores_of{*model, *longest};
  accuracy found;
  std::size_t run = 0;
  const stopwatch clock;
  for (std::size_t n = 0; n < tokens.size(); ++n) {
    progress.begin("questions", 0, 1);
    const auto scores = scores_of(tokens[n]);
    if (!scores) return of_question(scores.error(), f, (*questions)[n]);
    found.add((*questions)[n], *scores);
    run += tokens[n].context.size();
    for (const std::vector<int>& choice : tokens[n].choices) run += choice.size();
    if (auto on = check_goes_on(); !on) return on;
  }
  fmt::print("acc {:.4f} +- {:.4f}, acc_norm {:.4f} +- {:.4f} over {} questions, {:.0f} tokens/s\n", found.acc.mean(),
             found.acc.standard_error(), found.acc_norm.mean(), found.acc_norm.standard_error(), tokens.size(),
             static_cast<double>(run) / clock.seconds());
  return {};
}

} // namespace

command add_score(CLI::App& app) {
  const auto f = std::make_shared<score_flags>();
  CLI::App* const c = app.add_subcommand("score", "Measure how well a language model answers multiple choice");
  c->add_option("MODEL", f->model, "A model's directory, float or quantized")->required();
  c->add_option("QUESTIONS", f->questions, "A file with a JSON object of a question on each line")->required();
  c->add_option("--limit", f->limit, "Questions from the file's start; without this, all");
  c->add_option("--delimiter", f->delimiter, "What stands between a context and a choice")->capture_default_str();
  add_engine_flags(*c, f->engine);
  c->add_flag("--quiet", f->quiet, "Show no progress");
  c->footer(
      "A line is {\"query\": \"Two and two is\", \"choices\": [\"three\", \"four\"], \"gold\": 1}; query may be "
      "called\n"
      "context, question or ctx, choices endings, and gold answer or label.\n"
      "acc is how often the right choice has the highest log-likelihood, acc_norm how often after division by the\n"
      "choice's length in characters; both as lm-evaluation-harness counts them. After +- stands the standard error\n"
      "over questions. tokens/s counts each context once.");
  return {c, [f] { return score(*f); }};
}

} // namespace sinq_cli
