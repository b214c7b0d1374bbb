#include "command.hpp"
#include "model_files.hpp"
#include "report.hpp"
#include "signals.hpp"
#include "text.hpp"

#include <sinq/metrics.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>

namespace sinq_cli {

namespace {

namespace io = sinq::io;
using nlohmann::json;
using sinq::errc;
using sinq::make_error;
using sinq::result;

struct verify_flags {
  std::string output, input, report;
  double max_error = std::numeric_limits<double>::infinity();
  bool quiet = false;
};

/// What was found of one tensor.
struct finding {
  std::string name;
  std::string problem; ///< empty: as it should be
  bool quantized = false;
  sinq::error_metrics error;
};

/// Element type and shape, for people.
std::string kind(sinq::dtype type, std::span<const std::size_t> shape) {
  return fmt::format("{} {}", to_string(type), io::to_string(shape));
}

std::string compare_bytes(const io::checkpoint& output, const io::checkpoint_tensor& copy,
                          const io::model_reader& input, const io::model_tensor& original) {
  const auto a = output.data(copy).span();
  const auto b = input.data(original).span();
  const auto at = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return at.first == a.end() ? "" : fmt::format("differs from the original at byte {}", at.first - a.begin());
}

result<finding> check_tensor(const io::checkpoint& output, const io::model_reader& input,
                             const io::model_tensor& original, double max_error) {
  const io::tensor_info& info = original.info;
  finding found{info.name, "", false, {}};
  const io::checkpoint_tensor* const copy = output.find(info.name);
  if (copy == nullptr) {
    found.problem = "missing";
    return found;
  }
  found.quantized = copy->quantized;
  if (copy->type != info.type || copy->shape != info.shape) {
    found.problem = fmt::format("is {}, expected {}", kind(copy->type, copy->shape), kind(info.type, info.shape));
    return found;
  }
  if (!copy->quantized) {
    found.problem = compare_bytes(output, *copy, input, original);
    return found;
  }
  const sinq::shared_bytes data = input.data(original);
  const sinq::weight_view w{data.data(), info.type, info.shape[0], info.shape[1]};
  const auto error = sinq::measure_error(w, output.packed(*copy), sinq::column_normalizing_weights(w));
  if (!error) return error.error();
  found.error = *error;
  if (!error->finite || !std::isfinite(error->relative_error))
    found.problem = "stands for weights that are not finite";
  else if (!(error->relative_error <= max_error))
    found.problem = fmt::format("relative error {:.6g}, more than {:.6g}", error->relative_error, max_error);
  return found;
}

result<std::vector<finding>> check_all(const io::checkpoint& output, const io::model_reader& input,
                                       const verify_flags& f) {
  double total = 0;
  for (const io::model_tensor& tensor : input.tensors()) total += static_cast<double>(tensor.info.size_bytes());
  progress_bar progress{total, f.quiet};
  std::vector<finding> all;
  for (const io::model_tensor& tensor : input.tensors()) {
    progress.begin(tensor.info.name, tensor.info.size_bytes(), static_cast<double>(tensor.info.size_bytes()));
    if (auto on = check_goes_on(); !on) return std::move(on).error();
    auto found = check_tensor(output, input, tensor, f.max_error);
    if (!found) return of_tensor(std::move(found).error(), file_of(output, tensor.info.name), tensor.info.name);
    all.push_back(*std::move(found));
    input.release(tensor);
    if (const io::checkpoint_tensor* copy = output.find(tensor.info.name); copy != nullptr) output.release(*copy);
  }
  for (const io::checkpoint_tensor& tensor : output.tensors())
    if (input.find(tensor.name) == nullptr) all.push_back({tensor.name, "not in the original", tensor.quantized, {}});
  return all;
}

std::string status(const finding& f) {
  if (!f.problem.empty()) return f.problem;
  return f.quantized ? "ok" : "identical";
}

/// Sums over the quantized tensors that are there.
struct finding_totals {
  std::size_t quantized = 0, problems = 0;
  double mean = 0, mean_column = 0, worst = 0;
};

finding_totals sum_up(const std::vector<finding>& all) {
  finding_totals t;
  for (const finding& f : all) {
    if (!f.problem.empty()) ++t.problems;
    if (!f.quantized) continue;
    ++t.quantized;
    t.mean += f.error.relative_error;
    t.mean_column += f.error.weighted_relative_error;
    t.worst = std::max(t.worst, f.error.relative_error);
  }
  const double count = static_cast<double>(std::max<std::size_t>(1, t.quantized));
  t.mean /= count;
  t.mean_column /= count;
  return t;
}

void print(const std::vector<finding>& all) {
  using side = text_table::align;
  text_table table{
      {{"tensor", side::left}, {"error"}, {"column error"}, {"max error"}, {"cosine"}, {"status", side::left}}};
  for (const finding& f : all)
    if (f.quantized)
      table.add({one_line(f.name), fmt::format("{:.5f}", f.error.relative_error),
                 fmt::format("{:.5f}", f.error.weighted_relative_error), fmt::format("{:.5g}", f.error.max_error),
                 fmt::format("{:.6f}", f.error.cosine), status(f)});
    else
      table.add({one_line(f.name), "", "", "", "", status(f)});
  const finding_totals t = sum_up(all);
  table.add_rule();
  table.add({fmt::format("{} quantized, {} not", t.quantized, all.size() - t.quantized), fmt::format("{:.5f}", t.mean),
             fmt::format("{:.5f}", t.mean_column), "", "",
             t.problems == 0 ? "ok" : fmt::format("{} with problems", t.problems)});
  fmt::print("{}", table.to_string());
}

json document(const std::vector<finding>& all, const verify_flags& f) {
  const finding_totals t = sum_up(all);
  json doc = report_head("verify");
  doc.update({{"output", f.output}, {"against", f.input}, {"ok", t.problems == 0}, {"tensors", json::array()}});
  for (const finding& found : all) {
    json entry{
        {"name", found.name}, {"quantized", found.quantized}, {"status", status(found)}, {"ok", found.problem.empty()}};
    if (found.quantized)
      entry.update({{"relative_error", found.error.relative_error},
                    {"column_normalized_error", found.error.weighted_relative_error},
                    {"mse", found.error.mse},
                    {"max_error", found.error.max_error},
                    {"cosine", found.error.cosine},
                    {"snr_db", found.error.snr_db},
                    {"finite", found.error.finite}});
    doc["tensors"].push_back(std::move(entry));
  }
  doc["totals"] = {{"quantized", t.quantized},
                   {"problems", t.problems},
                   {"mean_relative_error", t.mean},
                   {"mean_column_normalized_error", t.mean_column},
                   {"worst_relative_error", t.worst}};
  return doc;
}

result<void> run(const verify_flags& f) {
  const auto output = io::checkpoint::open(f.output);
  if (!output) return output.error();
  const auto input = io::model_reader::open(f.input);
  if (!input) return input.error();
  for (const io::model_reader* model : {&output->model(), &*input})
    if (auto differs = check_report(*model, f.report); !differs) return differs;
  auto report = json_report::create(f.report);
  if (!report) return std::move(report).error();
  const auto all = check_all(*output, *input, f);
  if (!all) return all.error();
  if (auto done = report->write(document(*all, f)); !done) return done;
  if (auto done = report->commit(); !done) return done;
  if (!f.quiet) print(*all);
  const auto bad = std::find_if(all->begin(), all->end(), [](const finding& found) { return !found.problem.empty(); });
  if (bad == all->end()) return {};
  sinq::error failure = make_error(errc::malformed, bad->problem);
  if (const std::size_t others = sum_up(*all).problems - 1; others > 0)
    failure.message += fmt::format("; and {} more with problems", others);
  return of_tensor(std::move(failure), f.output, bad->name);
}

} // namespace

command add_verify(CLI::App& app) {
  const auto f = std::make_shared<verify_flags>();
  CLI::App* const c = app.add_subcommand("verify", "Check a quantized model against the one that it was made from");
  c->add_option("OUT", f->output, "What sinq quantize made: a file, or a directory")->required();
  c->add_option("--against", f->input, "The original file or directory")->required();
  c->add_option("--max-relative-error", f->max_error, "Fail if a tensor's relative error is above this")
      ->check(CLI::NonNegativeNumber);
  c->add_flag("--quiet", f->quiet, "Print nothing but errors");
  c->add_option("--json", f->report, "Write what was found to this file too")->type_name("FILE");
  c->footer("Exit status 0 if every tensor is there, of its type and shape, finite, within the limit if quantized and\n"
            "identical if not, and no other tensor is; else 1.");
  return {c, [f] { return run(*f); }};
}

} // namespace sinq_cli
