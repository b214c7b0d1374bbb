#include "command.hpp"
#include "engine_flags.hpp"
#include "progress.hpp"

#include <engine/likelihood.hpp>

#include <fmt/format.h>

#include <cmath>
#include <memory>

namespace sinq_cli {

namespace {

sinq::result<void> measure(const scoring_flags& f) {
  sinq::thread_pool threads{f.engine.threads};
  const auto tokenizer = engine::tokenizer::open(f.model);
  if (!tokenizer) return tokenizer.error();
  const auto windows = windows_of(f.text, *tokenizer, f.window, f.windows);
  if (!windows) return windows.error();
  const auto model = open_model(f.model, f.engine, threads);
  if (!model) return model.error();

  const std::size_t scored = f.window - 1;
  engine::float_buffer log_p{scored, model->config().vocabulary};
  const stopwatch clock;
  engine::window_mean nll;
  const auto score = [&](std::span<const int> window) -> sinq::result<void> {
    if (auto ok = engine::log_probabilities(*model, window, log_p); !ok) return ok;
    nll.add(engine::negative_log_likelihood(log_p, window));
    return {};
  };
  if (auto ok = score_windows(*windows, f, score); !ok) return ok;
  const double perplexity = std::exp(nll.mean());
  fmt::print("perplexity {:.4f} +- {:.4f} over {} tokens in {} windows of {}, {:.0f} tokens/s\n", perplexity,
             perplexity * nll.standard_error(), scored * windows->size(), windows->size(), f.window,
             static_cast<double>(f.window * windows->size()) / clock.seconds());
  return {};
}

} // namespace

command add_perplexity(CLI::App& app) {
  const auto f = std::make_shared<scoring_flags>();
  CLI::App* const c = app.add_subcommand("perplexity", "Measure how well a language model predicts a text");
  add_scoring_flags(*c, *f);
  c->footer("Perplexity is exp of the mean of -log p; windows follow each other without overlap. After +- stands the\n"
            "standard error over windows.");
  return {c, [f] { return measure(*f); }};
}

} // namespace sinq_cli
