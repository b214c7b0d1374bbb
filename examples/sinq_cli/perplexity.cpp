#include "command.hpp"
#include "engine_flags.hpp"
#include "progress.hpp"
#include "signals.hpp"

#include <engine/likelihood.hpp>

#include <fmt/format.h>

#include <cmath>
#include <numeric>

namespace sinq_cli {

namespace {

struct perplexity_flags {
  engine_flags engine;
  std::string model, text;
  std::size_t window = 512, windows = 0;
  bool quiet = false;
};

sinq::result<void> measure(const perplexity_flags& f) {
  const auto threads = std::make_shared<sinq::thread_pool>(f.engine.threads);
  const auto tokenizer = engine::tokenizer::open(f.model);
  if (!tokenizer) return tokenizer.error();
  const auto windows = windows_of(f.text, *tokenizer, f.window, f.windows);
  if (!windows) return windows.error();
  const auto running = running_model::open(f.model, f.engine, threads);
  if (!running) return running.error();

  const std::size_t scored = f.window - 1, vocabulary = running->model().config().vocabulary;
  std::vector<float> buffer(scored * vocabulary);
  const sinq::matrix_view<float> log_p{buffer.data(), scored, vocabulary};
  progress_bar progress{static_cast<double>(windows->size()), f.quiet};
  const stopwatch clock;
  engine::window_mean nll;
  for (const std::vector<int>& window : *windows) {
    progress.begin("windows", 0, 1);
    if (auto ok = engine::log_probabilities(running->model(), window, log_p, running->with()); !ok) return ok;
    const std::vector<double> all = engine::negative_log_likelihood(log_p, window);
    nll.add(std::accumulate(all.begin(), all.end(), 0.0) / static_cast<double>(scored));
    if (auto on = check_goes_on(); !on) return on;
  }
  const double perplexity = std::exp(nll.mean());
  fmt::print("perplexity {:.4f} +- {:.4f} over {} tokens in {} windows of {}, {:.0f} tokens/s\n", perplexity,
             perplexity * nll.standard_error(), scored * windows->size(), windows->size(), f.window,
             static_cast<double>(f.window * windows->size()) / clock.seconds());
  return {};
}

} // namespace

command add_perplexity(CLI::App& app) {
  const auto f = std::make_shared<perplexity_flags>();
  CLI::App* const c = app.add_subcommand("perplexity", "Measure how well a language model predicts a text");
  c->add_option("MODEL", f->model, "A model's directory, float or quantized")->required();
  c->add_option("--text", f->text, "The text")->required();
  c->add_option("--window", f->window, "Tokens that are seen together; the first is not scored")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  c->add_option("--windows", f->windows, "Windows from the text's start; without this, all");
  add_engine_flags(*c, f->engine);
  c->add_flag("--quiet", f->quiet, "Show no progress");
  c->footer("Perplexity is exp of the mean of -log p; windows follow each other without overlap. After +- stands the\n"
            "standard error over windows.");
  return {c, [f] { return measure(*f); }};
}

} // namespace sinq_cli
