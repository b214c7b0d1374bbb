#include "command.hpp"
#include "engine_flags.hpp"

#include <engine/likelihood.hpp>

#include <fmt/format.h>

#include <cmath>
#include <memory>

namespace sinq_cli {

namespace {

struct compare_models_flags : scoring_flags {
  std::string against;
};

/// What windows say of two models.
struct comparison {
  engine::window_mean nll, nll_against, kl;
  std::size_t flips = 0, common = 0, tokens = 0;

  void add(const std::vector<engine::divergence>& all) {
    std::vector<double> kls;
    for (const engine::divergence& d : all) {
      kls.push_back(d.kl);
      flips += d.is_flipped ? 1 : 0;
      common += static_cast<std::size_t>(d.common);
    }
    tokens += all.size();
    kl.add(kls);
  }
};

void print(const comparison& c, const compare_models_flags& f) {
  const double tokens = static_cast<double>(c.tokens);
  fmt::print("{}: perplexity {:.4f}\n", f.against, std::exp(c.nll_against.mean()));
  fmt::print("{}: perplexity {:.4f}, KL {:.5f} +- {:.5f}, flips {:.2f} %, top-5 overlap {:.2f} %\n", f.model,
             std::exp(c.nll.mean()), c.kl.mean(), c.kl.standard_error(), 100 * static_cast<double>(c.flips) / tokens,
             20 * static_cast<double>(c.common) / tokens);
  fmt::print("{} tokens in {} windows of {}\n", c.tokens, c.kl.count(), f.window);
}

sinq::result<void> compare(const compare_models_flags& f) {
  sinq::thread_pool threads{f.engine.threads};
  const auto tokenizer = engine::tokenizer::open(f.against);
  if (!tokenizer) return tokenizer.error();
  const auto windows = windows_of(f.text, *tokenizer, f.window, f.windows);
  if (!windows) return windows.error();
  const auto model = open_model(f.model, f.engine, threads);
  if (!model) return model.error();
  engine_flags as_it_is;
  as_it_is.precision = f.engine.precision;
  const auto against = open_model(f.against, as_it_is, threads);
  if (!against) return against.error();
  const std::size_t vocabulary = model->config().vocabulary;
  if (against->config().vocabulary != vocabulary)
    return sinq::make_error(sinq::errc::invalid_argument, f.model, ": has a vocabulary of ", vocabulary, ", and ",
                            f.against, " one of ", against->config().vocabulary);

  engine::float_buffer log_p{f.window - 1, vocabulary}, log_q{f.window - 1, vocabulary};
  comparison c;
  const auto score = [&](std::span<const int> window) -> sinq::result<void> {
    if (auto ok = engine::log_probabilities(*against, window, log_p); !ok) return ok;
    if (auto ok = engine::log_probabilities(*model, window, log_q); !ok) return ok;
    c.nll_against.add(engine::negative_log_likelihood(log_p, window));
    c.nll.add(engine::negative_log_likelihood(log_q, window));
    c.add(engine::divergences(log_p, log_q, threads));
    return {};
  };
  if (auto ok = score_windows(*windows, f, score); !ok) return ok;
  print(c, f);
  return {};
}

} // namespace

command add_compare_models(CLI::App& app) {
  const auto f = std::make_shared<compare_models_flags>();
  CLI::App* const c = app.add_subcommand("compare-models", "Measure how far a model's predictions are from another's");
  add_scoring_flags(*c, *f);
  c->add_option("--against", f->against, "The model to compare with, usually the float one")->required();
  c->footer("KL is the mean of sum p (log p - log q) in nats, p of the model to compare with; after +- stands its\n"
            "standard error over windows. A flip is a position whose likeliest token is another. --method quantizes\n"
            "MODEL alone, so that MODEL may be the float one.");
  return {c, [f] { return compare(*f); }};
}

} // namespace sinq_cli
