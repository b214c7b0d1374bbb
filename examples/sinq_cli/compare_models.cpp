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

struct compare_models_flags {
  engine_flags engine;
  std::string model, against, text;
  std::size_t window = 512, windows = 0;
  bool quiet = false;
};

/// What windows say of two models.
struct comparison {
  engine::window_mean nll, nll_against, kl;
  std::size_t flips = 0, common = 0, tokens = 0;

  void add(const std::vector<engine::divergence>& all) {
    double sum = 0;
    for (const engine::divergence& d : all) {
      sum += d.kl;
      flips += d.is_flipped ? 1 : 0;
      common += static_cast<std::size_t>(d.common);
    }
    tokens += all.size();
    kl.add(sum / static_cast<double>(all.size()));
  }
};

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

void print(const comparison& c, const compare_models_flags& f) {
  const double tokens = static_cast<double>(c.tokens);
  fmt::print("{}: perplexity {:.4f}\n", f.against, std::exp(c.nll_against.mean()));
  fmt::print("{}: perplexity {:.4f}, KL {:.5f} +- {:.5f}, flips {:.2f} %, top-5 overlap {:.2f} %\n", f.model,
             std::exp(c.nll.mean()), c.kl.mean(), c.kl.standard_error(), 100 * static_cast<double>(c.flips) / tokens,
             20 * static_cast<double>(c.common) / tokens);
  fmt::print("{} tokens in {} windows of {}\n", c.tokens, c.kl.count(), f.window);
}

sinq::result<void> compare(const compare_models_flags& f) {
  const auto threads = std::make_shared<sinq::thread_pool>(f.engine.threads);
  const auto tokenizer = engine::tokenizer::open(f.against);
  if (!tokenizer) return tokenizer.error();
  const auto windows = windows_of(f.text, *tokenizer, f.window, f.windows);
  if (!windows) return windows.error();
  const auto model = running_model::open(f.model, f.engine, threads);
  if (!model) return model.error();
  engine_flags as_it_is;
  as_it_is.precision = f.engine.precision;
  const auto against = running_model::open(f.against, as_it_is, threads);
  if (!against) return against.error();
  const std::size_t vocabulary = model->model().config().vocabulary;
  if (against->model().config().vocabulary != vocabulary)
    return sinq::make_error(sinq::errc::invalid_argument, f.model, ": has a vocabulary of ", vocabulary, ", and ",
                            f.against, " one of ", against->model().config().vocabulary);

  const std::size_t scored = f.window - 1;
  std::vector<float> buffer_p(scored * vocabulary), buffer_q(scored * vocabulary);
  const sinq::matrix_view<float> log_p{buffer_p.data(), scored, vocabulary}, log_q{buffer_q.data(), scored, vocabulary};
  progress_bar progress{static_cast<double>(windows->size()), f.quiet};
  comparison c;
  for (const std::vector<int>& window : *windows) {
    progress.begin("windows", 0, 1);
    if (auto ok = engine::log_probabilities(against->model(), window, log_p, against->with()); !ok) return ok;
    if (auto ok = engine::log_probabilities(model->model(), window, log_q, model->with()); !ok) return ok;
    c.nll_against.add(mean(engine::negative_log_likelihood(log_p, window)));
    c.nll.add(mean(engine::negative_log_likelihood(log_q, window)));
    c.add(engine::divergences(log_p, log_q, *threads));
    if (auto on = check_goes_on(); !on) return on;
  }
  print(c, f);
  return {};
}

} // namespace

command add_compare_models(CLI::App& app) {
  const auto f = std::make_shared<compare_models_flags>();
  CLI::App* const c = app.add_subcommand("compare-models", "Measure how far a model's predictions are from another's");
  c->add_option("MODEL", f->model, "A model's directory, float or quantized")->required();
  c->add_option("--against", f->against, "The model to compare with, usually the float one")->required();
  c->add_option("--text", f->text, "The text")->required();
  c->add_option("--window", f->window, "Tokens that are seen together; the first is not scored")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  c->add_option("--windows", f->windows, "Windows from the text's start; without this, all");
  add_engine_flags(*c, f->engine);
  c->add_flag("--quiet", f->quiet, "Show no progress");
  c->footer("KL is the mean of sum p (log p - log q) in nats, p of the model to compare with; after +- stands its\n"
            "standard error over windows. A flip is a position whose likeliest token is another. --method quantizes\n"
            "MODEL alone, so that MODEL may be the float one.");
  return {c, [f] { return compare(*f); }};
}

} // namespace sinq_cli
