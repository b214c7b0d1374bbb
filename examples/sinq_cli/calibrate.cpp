#include "calibration_texts.hpp"
#include "command.hpp"
#include "engine_flags.hpp"
#include "progress.hpp"

#include <engine/calibration.hpp>

#include <sinq/io/moments.hpp>

#include <fmt/format.h>

namespace sinq_cli {

namespace {

struct calibrate_flags {
  engine_flags engine;
  std::string model, output, text;
  bool self = false, random = false, full = false, quiet = false;
  std::size_t tokens = 8192, window = 512;
  std::uint64_t seed = 1;
};

/// What the model is calibrated on, [windows][tokens].
sinq::result<std::vector<std::vector<int>>> make_windows(const calibrate_flags& f, const engine::tokenizer& tokenizer,
                                                         const engine::model& model, progress_bar& progress) {
  if (!f.text.empty()) return windows_of(f.text, tokenizer, f.window, (f.tokens + f.window - 1) / f.window);
  progress.begin("texts", 0, f.self ? 1 : 0);
  auto texts = f.random ? random_texts(model, tokenizer, f.tokens, f.window, f.seed)
                        : own_texts(model, tokenizer, f.tokens, f.seed, progress.callback());
  if (!texts) return std::move(texts).error().in(f.model);
  return texts;
}

sinq::result<void> calibrate(const calibrate_flags& f) {
  if ((f.text.empty() ? 0 : 1) + (f.self ? 1 : 0) + (f.random ? 1 : 0) != 1)
    return sinq::make_error(sinq::errc::invalid_argument, "expected one of --text FILE, --self and --random");
  const auto tokenizer = engine::tokenizer::open(f.model);
  if (!tokenizer) return tokenizer.error();
  sinq::thread_pool threads{f.engine.threads};
  const auto model = open_model(f.model, f.engine, threads);
  if (!model) return model.error();
  auto writer = sinq::io::safetensors_writer::create(f.output);
  if (!writer) return std::move(writer).error();
  progress_bar progress{f.self ? 2.0 : 1.0, f.quiet};
  const stopwatch clock;
  const auto windows = make_windows(f, *tokenizer, *model, progress);
  if (!windows) return windows.error();
  const std::size_t tokens = windows->size() * windows->front().size();
  if (auto ok = writer->set_metadata("kind", f.self ? "self" : f.random ? "random" : "text"); !ok) return ok;
  if (auto ok = writer->set_metadata("tokens", std::to_string(tokens)); !ok) return ok;
  std::size_t layers = 0;
  const auto sink = [&](const std::string& name, const sinq::input_moments& m) {
    ++layers;
    return sinq::io::write_moments(*writer, name, m);
  };
  progress.begin("layers", 0, 1);
  if (auto ok = engine::calibrate(*model, *windows, f.full, sink, progress.callback()); !ok) return ok;
  if (auto ok = writer->commit(); !ok) return ok;
  if (!f.quiet)
    fmt::print("{}: moments of {} layers over {} tokens in {:.1f} s\n", f.output, layers, tokens, clock.seconds());
  return {};
}

} // namespace

command add_calibrate(CLI::App& app) {
  const auto f = std::make_shared<calibrate_flags>();
  CLI::App* const c = app.add_subcommand("calibrate", "Measure the inputs of a language model's layers");
  c->add_option("MODEL", f->model, "A model's directory, float or quantized")->required();
  c->add_option("-o,--output", f->output, "The safetensors file to write")->required();
  c->add_option("--text", f->text, "On the first tokens of a text");
  c->add_flag("--self", f->self, "On texts that the model writes itself, which takes no data");
  c->add_flag("--random", f->random, "On random tokens");
  c->add_option("--tokens", f->tokens, "Tokens to run")->check(CLI::Range(2, 1 << 28))->capture_default_str();
  c->add_option("--window", f->window, "Tokens of --text and --random that see each other")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  c->add_flag("--full", f->full, "E[x x^T] too, which error feedback and GPTQ need");
  c->add_option("--seed", f->seed, "Of --self and --random")->capture_default_str();
  add_engine_flags(*c, f->engine);
  c->add_flag("--quiet", f->quiet, "Print nothing but errors");
  c->footer(
      "The file is what --refine and --moments of sinq quantize take: for each layer NAME.second_moment, E[x_j^2],\n"
      "NAME.mean_abs, E|x_j|, and with --full NAME.hessian.");
  return {c, [f] { return calibrate(*f); }};
}

} // namespace sinq_cli
