#include "command.hpp"
#include "engine_flags.hpp"

#include <engine/likelihood.hpp>

#include <fmt/format.h>

#include <cmath>
#include <memory>

namespace sinq_cli {

namespace {

struct compare_models_flags : scoring_flags {
  std::vector<std::string> models;
  std::string against;
};

/// What windows say of a model beside the one to compare with.
struct comparison {
  engine::window_mean nll, kl, flips, overlap;

  void add(const std::vector<engine::divergence>& all) {
    double kl_sum = 0, flip_count = 0, common = 0;
    for (const engine::divergence& d : all) {
      kl_sum += d.kl;
      flip_count += d.is_flipped ? 1 : 0;
      common += d.common;
    }
    const double positions = static_cast<double>(all.size());
    kl.add(kl_sum / positions);
    flips.add(flip_count / positions);
    overlap.add(common / (engine::compared_tokens * positions));
  }
};

/// What windows say of all models.
struct comparisons {
  engine::window_mean nll_against;
  std::vector<comparison> of_models;
};

void print(const comparisons& all, const compare_models_flags& f) {
  fmt::print("{}: perplexity {:.4f}\n", f.against, std::exp(all.nll_against.mean()));
  for (std::size_t m = 0; m < f.models.size(); ++m) {
    const comparison& c = all.of_models[m];
    fmt::print("{}: perplexity {:.4f}, KL {:.5f} +- {:.5f}, flips {:.2f} %, top-5 overlap {:.2f} %\n", f.models[m],
               std::exp(c.nll.mean()), c.kl.mean(), c.kl.standard_error(), 100 * c.flips.mean(),
               100 * c.overlap.mean());
  }
  const std::size_t windows = all.nll_against.count();
  fmt::print("{} tokens in {} windows of {}\n", windows * (f.window - 1), windows, f.window);
}

nlohmann::json to_json(const comparisons& all, const compare_models_flags& f) {
  nlohmann::json document = scoring_document("compare-models", f, all.nll_against.count());
  document["against"] = {{"model", f.against},
                         {"perplexity", std::exp(all.nll_against.mean())},
                         {"each_window", {{"nll", all.nll_against.values()}}}};
  for (std::size_t m = 0; m < f.models.size(); ++m) {
    const comparison& c = all.of_models[m];
    document["models"].push_back(
        {{"model", f.models[m]},
         {"perplexity", std::exp(c.nll.mean())},
         {"kl", c.kl.mean()},
         {"kl_standard_error", c.kl.standard_error()},
         {"flips", c.flips.mean()},
         {"top5_overlap", c.overlap.mean()},
         {"each_window", {{"nll", c.nll.values()}, {"kl", c.kl.values()}, {"flips", c.flips.values()}}}});
  }
  return document;
}

/// Opens the models, which must have the vocabulary of the one to compare with.
sinq::result<std::vector<engine::model>> open_models(const compare_models_flags& f, std::size_t vocabulary,
                                                     sinq::executor& threads) {
  std::vector<engine::model> models;
  for (const std::string& directory : f.models) {
    auto model = open_model(directory, f.engine, threads);
    if (!model) return std::move(model).error();
    if (model->config().vocabulary != vocabulary)
      return sinq::make_error(sinq::errc::invalid_argument, directory, ": has a vocabulary of ",
                              model->config().vocabulary, ", and ", f.against, " one of ", vocabulary);
    models.push_back(*std::move(model));
  }
  return models;
}

sinq::result<void> compare(const compare_models_flags& f) {
  std::vector<std::string> read = f.models;
  read.push_back(f.against);
  auto report = create_report(f, read);
  if (!report) return std::move(report).error();
  sinq::thread_pool threads{f.engine.threads};
  const auto tokenizer = engine::tokenizer::open(f.against);
  if (!tokenizer) return tokenizer.error();
  const auto windows = windows_of(f.text, *tokenizer, f.window, f.windows);
  if (!windows) return windows.error();
  engine_flags as_it_is;
  as_it_is.precision = f.engine.precision;
  const auto against = open_model(f.against, as_it_is, threads);
  if (!against) return against.error();
  const std::size_t vocabulary = against->config().vocabulary;
  const auto models = open_models(f, vocabulary, threads);
  if (!models) return models.error();

  engine::float_buffer log_p{f.window - 1, vocabulary}, log_q{f.window - 1, vocabulary};
  comparisons all;
  all.of_models.resize(models->size());
  const auto score = [&](std::span<const int> window) -> sinq::result<void> {
    if (auto ok = engine::log_probabilities(*against, window, log_p); !ok) return ok;
    all.nll_against.add(engine::negative_log_likelihood(log_p, window));
    for (std::size_t m = 0; m < models->size(); ++m) {
      if (auto ok = engine::log_probabilities((*models)[m], window, log_q); !ok) return ok;
      all.of_models[m].nll.add(engine::negative_log_likelihood(log_q, window));
      all.of_models[m].add(engine::divergences(log_p, log_q, threads));
    }
    return {};
  };
  if (auto ok = score_windows(*windows, f, score); !ok) return ok;
  if (auto done = report->write(to_json(all, f)); !done) return done;
  if (auto done = report->commit(); !done) return done;
  print(all, f);
  return {};
}

} // namespace

command add_compare_models(CLI::App& app) {
  const auto f = std::make_shared<compare_models_flags>();
  CLI::App* const c =
      app.add_subcommand("compare-models", "Measure how far the predictions of models are from another's");
  c->add_option("MODEL", f->models, "Directories of models, float or quantized")->required();
  add_scoring_flags(*c, *f);
  c->add_option("--against", f->against, "The model to compare with, usually the float one")->required();
  c->footer("KL is the mean of sum p (log p - log q) in nats, p of the model to compare with; after +- stands its\n"
            "standard error over windows. A flip is a position whose likeliest token is another. --method quantizes\n"
            "MODEL alone, so that MODEL may be the float one.");
  return {c, [f] { return compare(*f); }};
}

} // namespace sinq_cli
