#include "command.hpp"
#include "model_files.hpp"
#include "report.hpp"
#include "text.hpp"

#include <fmt/format.h>

#include <memory>

namespace sinq_cli {

namespace {

namespace io = sinq::io;
using nlohmann::json;
using sinq::result;

struct inspect_flags {
  std::string input, report;
};

std::size_t bytes_of(const io::checkpoint& model, const io::checkpoint_tensor& tensor) {
  return tensor.quantized ? io::stored_bytes(model.format(tensor), model.layout(tensor))
                          : io::tensor_bytes(tensor.type, tensor.shape).value_or(0);
}

double bits_per_weight(const io::checkpoint& model, const io::checkpoint_tensor& tensor) {
  return 8 * static_cast<double>(bytes_of(model, tensor)) / static_cast<double>(tensor.shape[0] * tensor.shape[1]);
}

std::string layout_of(const io::checkpoint& model, const io::checkpoint_tensor& tensor) {
  return std::string{model.is_official() ? "official" : to_string(model.layout(tensor))};
}

/// Sums over a model's tensors.
struct model_totals {
  std::size_t quantized = 0, bytes = 0, quantized_bytes = 0;
  double elements = 0, quantized_elements = 0;
};

model_totals sum_up(const io::checkpoint& model) {
  model_totals t;
  for (const io::checkpoint_tensor& tensor : model.tensors()) {
    const std::size_t bytes = bytes_of(model, tensor);
    double elements = 1;
    for (const std::size_t extent : tensor.shape) elements *= static_cast<double>(extent);
    t.bytes += bytes;
    t.elements += elements;
    if (!tensor.quantized) continue;
    ++t.quantized;
    t.quantized_bytes += bytes;
    t.quantized_elements += elements;
  }
  return t;
}

json tensor_json(const io::checkpoint& model, const io::checkpoint_tensor& tensor) {
  json entry{{"name", tensor.name},
             {"dtype", to_string(tensor.type)},
             {"shape", tensor.shape},
             {"bytes", bytes_of(model, tensor)},
             {"file", file_of(model, tensor.name).filename().string()},
             {"quantized", tensor.quantized}};
  if (!tensor.quantized) return entry;
  const sinq::matrix_format& f = model.format(tensor);
  entry.update({{"method", model.method(tensor)},
                {"layout", layout_of(model, tensor)},
                {"bits", f.bits},
                {"group_size", f.group_size},
                {"aux_dtype", to_string(storage(f.aux))},
                {"symmetric", !f.has_zero},
                {"t_dtype", f.has_col_scale ? json(to_string(f.col_scale_type)) : json(nullptr)},
                {"bits_per_weight", bits_per_weight(model, tensor)}});
  return entry;
}

json document(const io::checkpoint& model, const inspect_flags& f) {
  const model_totals t = sum_up(model);
  json doc = report_head("inspect");
  doc["input"] = f.input;
  doc["metadata"] = json::object();
  for (const auto& [key, value] : model.model().metadata())
    if (!key.starts_with(io::checkpoint_tensor_prefix)) doc["metadata"][key] = value;
  doc["tensors"] = json::array();
  for (const io::checkpoint_tensor& tensor : model.tensors()) doc["tensors"].push_back(tensor_json(model, tensor));
  doc["totals"] = {{"tensors", model.tensors().size()},
                   {"quantized", t.quantized},
                   {"elements", t.elements},
                   {"bytes", t.bytes},
                   {"file_bytes", model_bytes(model.model())}};
  if (t.quantized > 0)
    doc["totals"]["bits_per_weight"] = 8 * static_cast<double>(t.quantized_bytes) / t.quantized_elements;
  return doc;
}

void print(const io::checkpoint& model) {
  using side = text_table::align;
  text_table table{{{"tensor", side::left},
                    {"dtype", side::left},
                    {"shape", side::left},
                    {"method", side::left},
                    {"layout", side::left},
                    {"bits"},
                    {"group"},
                    {"aux", side::left},
                    {"bits/weight"},
                    {"bytes"}}};
  for (const io::checkpoint_tensor& tensor : model.tensors()) {
    std::vector<std::string> cells{one_line(tensor.name), std::string{to_string(tensor.type)},
                                   io::to_string(tensor.shape)};
    if (tensor.quantized) {
      const sinq::matrix_format& f = model.format(tensor);
      cells.insert(cells.end(), {one_line(model.method(tensor)), layout_of(model, tensor), fmt::format("{}", f.bits),
                                 fmt::format("{}", f.group_size), std::string{to_string(storage(f.aux))},
                                 fmt::format("{:.3f}", bits_per_weight(model, tensor))});
    }
    cells.resize(9);
    cells.push_back(fmt::format("{}", bytes_of(model, tensor)));
    table.add(std::move(cells));
  }
  const model_totals t = sum_up(model);
  table.add_rule();
  table.add(
      {fmt::format("{} tensors, {} quantized", model.tensors().size(), t.quantized), "",
       fmt::format("{:.4g} million", t.elements * 1e-6), "", "", "", "", "",
       t.quantized == 0 ? "" : fmt::format("{:.3f}", 8 * static_cast<double>(t.quantized_bytes) / t.quantized_elements),
       fmt::format("{}", t.bytes)});
  fmt::print("{}", table.to_string());
}

result<void> run(const inspect_flags& f) {
  const auto model = io::checkpoint::open(f.input);
  if (!model) return model.error();
  if (auto differs = check_report(model->model(), f.report); !differs) return differs;
  auto report = json_report::create(f.report);
  if (!report) return std::move(report).error();
  if (auto done = report->write(document(*model, f)); !done) return done;
  if (auto done = report->commit(); !done) return done;
  print(*model);
  return {};
}

} // namespace

command add_inspect(CLI::App& app) {
  const auto f = std::make_shared<inspect_flags>();
  CLI::App* const c = app.add_subcommand("inspect", "List the tensors of a file or directory, quantized or not");
  c->add_option("IN", f->input, "A .safetensors file, or a model directory")->required();
  c->add_option("--json", f->report, "Write the list to this file too")->type_name("FILE");
  return {c, [f] { return run(*f); }};
}

} // namespace sinq_cli
