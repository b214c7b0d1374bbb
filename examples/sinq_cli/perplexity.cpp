#include "command.hpp"
#include "engine_flags.hpp"
#include "progress.hpp"

#include <engine/likelihood.hpp>

#include <fmt/format.h>

#include <cmath>
#include <memory>

namespace sinq_cli {

namespace {

struct perplexity_flags : scoring_flags {
  std::string model;
};

sinq::result<void> measure(const perplexity_flags& f) {
  auto report = create_report(f, {&f.model, 1});
  if (!report) return std::move(report).error();
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
  const double perplexity = std::exp(nll.mean()), error = perplexity * nll.standard_error();
  const double speed = static_cast<double>(f.window * windows->size()) / clock.seconds();
  nlohmann::json document = scoring_document("perplexity", f, windows->size());
  document.update({{"model", f.model},
                   {"perplexity", perplexity},
                   {"perplexity_standard_error", error},
                   {"tokens_per_second", speed},
                   {"each_window", {{"nll", nll.values()}}}});
  if (auto done = report->write(document); !done) return done;
  if (auto done = report->commit(); !done) return done;
  fmt::print("perplexity {:.4f} +- {:.4f} over {} tokens in {} windows of {}, {:.0f} tokens/s\n", perplexity, error,
             scored * windows->size(), windows->size(), f.window, speed);
  return {};
}

} // namespace

command add_perplexity(CLI::App& app) {
  const auto f = std::make_shared<perplexity_flags>();
  CLI::App* const c = app.add_subcommand("perplexity", "Measure how well a language model predicts a text");
  c->add_option("MODEL", f->model, "A model's directory, float or quantized")->required();
  add_scoring_flags(*c, *f);
  c->footer("Perplexity is exp of the mean of -log p; windows follow each other without overlap. After +- stands the\n"
            "standard error over windows.");
  return {c, [f] { return measure(*f); }};
}

} // namespace sinq_cli
