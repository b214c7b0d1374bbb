#include "calibration.hpp"
#include "command.hpp"
#include "model_files.hpp"
#include "quantizer_flags.hpp"
#include "report.hpp"
#include "signals.hpp"
#include "tensor_choice.hpp"
#include "text.hpp"

#include <sinq/metrics.hpp>
#include <sinq/pack/quantize_packed.hpp>

#include <fmt/format.h>

#include <cmath>
#include <memory>
#include <optional>

namespace sinq_cli {

namespace {

namespace io = sinq::io;
using nlohmann::json;
using sinq::errc;
using sinq::make_error;
using sinq::result;

struct compare_flags {
  std::string input, tensor, report;
  std::vector<int> bits{4};
  std::vector<std::string> methods{"rtn", "hqq", "nf4", "nf3", "sinq", "sinq_nf4", "sinq_nf3", "sinq_hqq"};
  quantizer_flags quantizer;
  bool quiet = false;
};

/// What one method makes of one tensor, or of all of them on average.
struct outcome {
  std::string tensor;
  std::string shape;
  int bits;
  std::string method;
  double error = 0, column_error = 0, bits_per_weight = 0, seconds = 0;
  std::optional<double> output_error{}; ///< where inputs are known
};

/// The tensors that are compared.
result<std::vector<const io::model_tensor*>> choose(const io::model_reader& input, const std::string& wanted) {
  std::vector<const io::model_tensor*> chosen;
  if (const io::model_tensor* exact = input.find(wanted); exact != nullptr) {
    if (!is_weight_matrix(exact->info))
      return make_error(errc::invalid_argument, "tensor ", io::in_quotes(wanted), ": is ", to_string(exact->info.type),
                        " of shape ", io::to_string(exact->info.shape), ", expected a floating-point matrix");
    return std::vector{exact};
  }
  const auto rule = name_rule::make(wanted);
  if (!rule) return sinq::error{rule.error()}.in("--tensor");
  const auto plan = choose_tensors(input, 4, {});
  if (!plan) return plan.error();
  for (std::size_t i = 0; i < input.tensors().size(); ++i) {
    const io::model_tensor& tensor = input.tensors()[i];
    if (wanted.empty() ? (*plan)[i].quantized() : is_weight_matrix(tensor.info) && rule->matches(tensor.info.name))
      chosen.push_back(&tensor);
  }
  if (chosen.empty() && wanted.empty())
    return make_error(errc::invalid_argument, "none of its ", input.tensors().size(), " tensors is to be quantized");
  if (chosen.empty())
    return make_error(errc::not_found, "--tensor ", io::in_quotes(wanted),
                      " matches none of the floating-point "
                      "matrices among its ",
                      input.tensors().size(), " tensors");
  return chosen;
}

result<outcome> try_method(const sinq::weight_view& w, const std::vector<double>& column_weights,
                           const sinq::method_info& method, const sinq::quantize_options& options) {
  const stopwatch clock;
  const auto packed = sinq::quantize_packed(w, options);
  if (!packed) return packed.error();
  const double seconds = clock.seconds();
  const auto error =
      sinq::measure_error(w, *packed, column_weights, options.inputs, {.threads = options.run.threads, .progress = {}});
  if (!error) return error.error();
  return outcome{{},
                 fmt::format("{} x {}", w.rows(), w.cols()),
                 options.bits,
                 std::string{method.name},
                 error->relative_error,
                 error->weighted_relative_error,
                 sinq::bits_per_weight(*packed),
                 seconds,
                 error->output_error};
}

/// The methods that were asked for, of those that have that width and all they need.
std::vector<sinq::method> fitting_methods(const compare_flags& f, sinq::quantize_options options, int bits,
                                          bool has_inputs) {
  std::vector<sinq::method> fitting;
  options.bits = bits;
  for (const std::string& name : f.methods) {
    options.method = sinq::parse_method(name).value(); // one of method_names()
    const bool fed = has_inputs || !sinq::info(options.method).needs_inputs;
    if (fed && check_options(options)) fitting.push_back(options.method);
  }
  return fitting;
}

result<void> try_tensor(const io::model_reader& input, const io::model_tensor& tensor, const compare_flags& f,
                        const calibration& known, sinq::quantize_options options, progress_bar& progress,
                        std::vector<outcome>& to) {
  const sinq::shared_bytes data = input.data(tensor);
  const sinq::weight_view w{data.data(), tensor.info.type, tensor.info.shape[0], tensor.info.shape[1]};
  const std::vector<double> column_weights = sinq::column_normalizing_weights(w);
  const auto inputs = known.find(tensor.info.name, false);
  if (!inputs) return inputs.error();
  if (*inputs) options.inputs = &**inputs;
  for (const int bits : f.bits)
    for (const sinq::method method : fitting_methods(f, options, bits, inputs->has_value())) {
      progress.begin(tensor.info.name, data.size(), static_cast<double>(data.size()));
      options.bits = bits;
      options.method = method;
      options.run.progress = progress.callback();
      auto found = try_method(w, column_weights, sinq::info(method), options);
      if (!found) return std::move(found).error();
      found->tensor = tensor.info.name;
      to.push_back(*std::move(found));
      if (auto on = check_goes_on(); !on) return on;
    }
  input.release(tensor);
  return {};
}

/// The mean over tensors, for each width and method in their order; seconds are summed.
std::vector<outcome> means(const std::vector<outcome>& all, const compare_flags& f) {
  std::vector<outcome> out;
  for (const int bits : f.bits)
    for (const std::string& method : f.methods) {
      outcome mean{"mean", "", bits, method};
      double count = 0, output_error = 0, with_output = 0;
      for (const outcome& o : all) {
        if (o.bits != bits || o.method != method) continue;
        ++count;
        mean.error += o.error;
        mean.column_error += o.column_error;
        mean.bits_per_weight += o.bits_per_weight;
        mean.seconds += o.seconds;
        output_error += o.output_error.value_or(0);
        with_output += o.output_error ? 1 : 0;
      }
      if (count == 0) continue;
      for (double* const sum : {&mean.error, &mean.column_error, &mean.bits_per_weight}) *sum /= count;
      if (with_output == count) mean.output_error = output_error / count;
      out.push_back(mean);
    }
  return out;
}

/// The outcome of round-to-nearest beside another one, or nothing where it was not tried.
const outcome* rtn_beside(const std::vector<outcome>& list, const outcome& other) {
  for (const outcome& o : list)
    if (o.method == to_string(sinq::method::rtn) && o.bits == other.bits && o.tensor == other.tensor) return &o;
  return nullptr;
}

/// An error as a part of the same error of round-to-nearest.
std::optional<double> of_rtn(const outcome& o, const outcome* rtn, double outcome::*error) {
  if (rtn == nullptr || rtn->*error == 0) return std::nullopt;
  return o.*error / rtn->*error;
}

std::string ratio_text(std::optional<double> ratio) {
  return ratio ? fmt::format("{:.3f}", *ratio) : "-";
}

json ratio_json(std::optional<double> ratio) {
  return ratio ? json(*ratio) : json(nullptr);
}

void print(const std::vector<outcome>& all, const std::vector<outcome>& mean) {
  using side = text_table::align;
  text_table table{{{"tensor", side::left},
                    {"shape", side::left},
                    {"bits"},
                    {"method", side::left},
                    {"error"},
                    {"of rtn"},
                    {"column error"},
                    {"of rtn"},
                    {"bits/weight"},
                    {"seconds"}}};
  const auto add = [&](const std::vector<outcome>& list) {
    std::string shown;
    for (const outcome& o : list) {
      const outcome* const rtn = rtn_beside(list, o);
      const bool again = shown == o.tensor;
      table.add({again ? "" : one_line(o.tensor), again ? "" : o.shape, fmt::format("{}", o.bits), o.method,
                 fmt::format("{:.5f}", o.error), ratio_text(of_rtn(o, rtn, &outcome::error)),
                 fmt::format("{:.5f}", o.column_error), ratio_text(of_rtn(o, rtn, &outcome::column_error)),
                 fmt::format("{:.3f}", o.bits_per_weight), fmt::format("{:.3f}", o.seconds)});
      shown = o.tensor;
    }
  };
  add(all);
  table.add_rule();
  add(mean);
  fmt::print("{}\nerror: |W - W'| / |W|; column error: the same with each column of W counted relative to its own "
             "size;\nseconds: to quantize and pack; in the mean, of all tensors together\n",
             table.to_string());
}

json to_json(const std::vector<outcome>& list) {
  json out = json::array();
  for (const outcome& o : list) {
    const outcome* const rtn = rtn_beside(list, o);
    out.push_back({{"tensor", o.tensor},
                   {"bits", o.bits},
                   {"method", o.method},
                   {"relative_error", o.error},
                   {"relative_error_of_rtn", ratio_json(of_rtn(o, rtn, &outcome::error))},
                   {"column_normalized_error", o.column_error},
                   {"column_normalized_error_of_rtn", ratio_json(of_rtn(o, rtn, &outcome::column_error))},
                   {"output_error", ratio_json(o.output_error)},
                   {"bits_per_weight", o.bits_per_weight},
                   {"seconds", o.seconds}});
  }
  return out;
}

result<void> run(const compare_flags& f) {
  const auto input = io::model_reader::open(f.input);
  if (!input) return input.error();
  const auto chosen = choose(*input, f.tensor);
  if (!chosen) return sinq::error{chosen.error()}.in(f.input);
  if (auto differs = check_report(*input, f.report); !differs) return differs;
  auto report = json_report::create(f.report);
  if (!report) return std::move(report).error();
  if (f.quantizer.refine == refine_self)
    return make_error(errc::invalid_argument, "--refine self is of sinq quantize: it takes a whole model");
  const auto known = calibration::open(moments_path(f.quantizer));
  if (!known) return known.error();
  sinq::thread_pool threads{f.quantizer.threads};
  sinq::quantize_options options = to_options(f.quantizer);
  options.run.threads = &threads;
  std::size_t tries = 0;
  for (const int bits : f.bits) tries += fitting_methods(f, options, bits, known->given()).size();
  if (tries == 0)
    return make_error(errc::invalid_argument, "none of the methods has that width and all that it needs: see --bits, "
                                              "--levels, --moments and --symmetric");
  std::vector<outcome> all;
  {
    double total = 0;
    for (const io::model_tensor* tensor : *chosen) total += static_cast<double>(tensor->info.size_bytes());
    progress_bar progress{total * static_cast<double>(tries), f.quiet};
    for (const io::model_tensor* tensor : *chosen)
      if (auto done = try_tensor(*input, *tensor, f, *known, options, progress, all); !done)
        return of_tensor(std::move(done).error(), file_of(*input, tensor->info.name), tensor->info.name);
  }
  const std::vector<outcome> mean = means(all, f);
  json doc = report_head("compare");
  doc.update({{"input", f.input}, {"tensors", to_json(all)}, {"mean", to_json(mean)}});
  if (auto done = report->write(doc); !done) return done;
  if (auto done = report->commit(); !done) return done;
  if (!f.quiet) print(all, mean);
  return {};
}

} // namespace

command add_compare(CLI::App& app) {
  const auto f = std::make_shared<compare_flags>();
  CLI::App* const c =
      app.add_subcommand("compare", "Quantize by several methods and compare errors, sizes and seconds");
  c->add_option("IN", f->input, "A .safetensors file, or a model directory")->required();
  c->add_option("--tensor", f->tensor, "Only this tensor, or those whose name matches this REGEX")->type_name("NAME");
  c->add_option("--bits", f->bits, "Bits of a code; give it again for another width")
      ->check(CLI::IsMember({2, 3, 4, 5, 6, 8}))
      ->expected(1)
      ->take_all()
      ->capture_default_str();
  c->add_option("--method", f->methods,
                "A method to compare; give it again for another. One that lacks the width, or "
                "something that it needs, is left out")
      ->check(CLI::IsMember(method_names()))
      ->expected(1)
      ->take_all()
      ->capture_default_str();
  add_quantizer_flags(*c, f->quantizer);
  c->add_flag("--quiet", f->quiet, "Print nothing but errors");
  c->add_option("--json", f->report, "Write what was found to this file too")->type_name("FILE");
  return {c, [f] { return run(*f); }};
}

} // namespace sinq_cli
