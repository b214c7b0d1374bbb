#include "self_refinement.hpp"

#include "calibration_texts.hpp"
#include "quantize_tensor.hpp"

#include <engine/calibration.hpp>

namespace sinq_cli {

namespace {

namespace io = sinq::io;
using sinq::errc;
using sinq::make_error;
using sinq::result;

constexpr std::string_view weight_suffix = ".weight";
/// Writing texts, and measuring the inputs of some weights, count this much of quantizing them.
constexpr double text_share = 0.5, measured_share = 1;

std::size_t index_of(const io::model_reader& input, const std::string& name) {
  return static_cast<std::size_t>(input.find(name) - input.tensors().data());
}

double bytes_of(const quantize_job& work, std::size_t tensor) {
  return static_cast<double>(work.input.tensors()[tensor].info.size_bytes());
}

/// Measures the inputs of one stop of a walk, and quantizes its layers.
result<void> quantize_stop(quantize_job& work, engine::calibration_walk& walk, io::model_writer& to,
                           progress_bar& progress) {
  const std::vector<std::string> layers = walk.layers();
  std::vector<std::size_t> tensors;
  double bytes = 0;
  for (const std::string& layer : layers) {
    tensors.push_back(index_of(work.input, layer + std::string{weight_suffix}));
    bytes += bytes_of(work, tensors.back());
  }
  progress.begin("inputs of " + layers.front(), 0, bytes * measured_share);
  const bool full = work.options.refinement_feedback || sinq::info(work.options.method).needs_inputs;
  const auto moments = walk.measure(full, progress.callback());
  if (!moments) return moments.error();
  for (std::size_t n = 0; n < layers.size(); ++n) {
    if (!work.plan[tensors[n]].quantized()) continue;
    const auto packed = quantize_tensor(work, tensors[n], &*moments, to, progress);
    if (!packed) return packed.error();
    if (!work.asked.self.through_quantized()) continue;
    auto panels = sinq::to_panels(*packed, {.threads = work.options.run.threads, .progress = {}});
    if (!panels) return std::move(panels).error();
    walk.replace(n, *std::move(panels));
  }
  return {};
}

} // namespace

void add_self_flags(CLI::App& app, self_flags& flags) {
  CLI::Option* const refine =
      app.get_option("--refine")
          ->description(
              "Fit scales, zero points and codes to the weighted error: none; weights, guessing from the weights what "
              "matters; self, by what the layers of a language model are given in texts that it writes itself, which "
              "takes no data; or a FILE of moments as for --moments. Without this, sinq is refined, by --moments if "
              "there are any, and the other methods are not")
          ->type_name("none|weights|self|FILE");
  app.add_option("--refine-order", flags.order,
                 "Of --refine self: what a layer is given is measured behind the layers before it as they were "
                 "(float, the default), or as they are once quantized (quantized)")
      ->needs(refine)
      ->check(CLI::IsMember({"float", "quantized"}));
  app.add_option("--refine-tokens", flags.tokens, "Of --refine self: tokens of its texts, by default 8192")
      ->needs(refine)
      ->check(CLI::Range(2, 1 << 28));
  app.add_option("--refine-seed", flags.seed, "Of --refine self: other texts, by default 1")->needs(refine);
}

result<std::optional<self_refinement>> self_refinement::prepare(const quantize_flags& asked,
                                                                const io::model_reader& input) {
  if (asked.quantizer.refine != refine_self) {
    if (!asked.self.any()) return std::optional<self_refinement>{};
    return make_error(errc::invalid_argument,
                      "--refine-order, --refine-tokens and --refine-seed are options of --refine self");
  }
  if (input.directory().empty())
    return make_error(errc::invalid_argument, "--refine self needs a language model's directory, but ",
                      io::in_quotes(asked.input), " is a file");
  const auto config = engine::read_config(input.directory());
  if (!config) return sinq::error{config.error()}.in("--refine self");
  auto tokenizer = engine::tokenizer::open(input.directory());
  if (!tokenizer) return std::move(tokenizer).error().in("--refine self");
  self_refinement self{*std::move(tokenizer), {}};
  for (const std::string& layer : engine::linear_layers(*config)) {
    const std::string name = layer + std::string{weight_suffix};
    if (input.find(name) == nullptr)
      return make_error(errc::not_found, "--refine self: ", input.directory().string(), ": the model has no tensor ",
                        io::in_quotes(name));
    self.weights.insert(name);
  }
  return std::optional{std::move(self)};
}

double measuring_work(const quantize_job& work) {
  double bytes = 0;
  for (const std::string& name : work.self->weights) bytes += bytes_of(work, index_of(work.input, name));
  return bytes * (text_share + measured_share);
}

result<void> quantize_decoder(quantize_job& work, io::model_writer& to, progress_bar& progress) {
  const self_flags& asked = work.asked.self;
  const auto model = engine::model::open(work.input.directory(),
                                         {.threads = work.options.run.threads, .precision = sinq::precision::exact});
  if (!model) return sinq::error{model.error()}.in("--refine self");
  progress.begin("texts of its own", 0, measuring_work(work) * text_share / (text_share + measured_share));
  const auto texts =
      own_texts(*model, work.self->tokenizer, asked.token_count(), asked.first_seed(), progress.callback());
  if (!texts) return sinq::error{texts.error()}.in(work.input.directory().string());
  auto walk = engine::calibration_walk::begin(*model, *texts);
  if (!walk) return std::move(walk).error();
  while (walk->next())
    if (auto done = quantize_stop(work, *walk, to, progress); !done) return done;
  return {};
}

} // namespace sinq_cli
