#include "model_files.hpp"
#include "quantize_job.hpp"
#include "report.hpp"
#include "text.hpp"

#include <fmt/format.h>

namespace sinq_cli {

namespace io = sinq::io;
using nlohmann::json;

namespace {

json options_json(const quantize_flags& f) {
  json options{{"method", f.method},
               {"format", f.format},
               {"layout", f.layout},
               {"bits", sinq::parse_preset(f.quantizer.preset) ? sinq::parse_preset(f.quantizer.preset)->bits : f.bits},
               {"group_size", f.quantizer.tile != 0 ? f.quantizer.tile : f.quantizer.group_size},
               {"tile", f.quantizer.tile},
               {"shift", f.quantizer.shift},
               {"levels", f.quantizer.levels},
               {"moments", f.quantizer.moments},
               {"refine", f.quantizer.refine},
               {"aux_dtype", f.quantizer.aux},
               {"symmetric", f.quantizer.symmetric},
               {"zero", f.quantizer.zero},
               {"iterations", f.quantizer.iterations},
               {"sinkhorn", f.quantizer.sinkhorn},
               {"include", f.choice.include},
               {"exclude", f.choice.exclude},
               {"bits_for", f.choice.bits_for}};
  if (f.quantizer.refine == refine_self)
    options.update({{"refine_order", f.self.through_quantized() ? "quantized" : "float"},
                    {"refine_tokens", f.self.token_count()},
                    {"refine_seed", f.self.first_seed()}});
  return options;
}

/// Sums over the quantized tensors.
struct job_totals {
  double weights = 0, bits = 0, seconds = 0, mean_error = 0, mean_column_error = 0;
  const quantize_outcome* worst = nullptr;
};

job_totals sum_up(const quantize_job& work) {
  job_totals t;
  for (const quantize_outcome& o : work.quantized) {
    t.weights += o.weights();
    t.bits += 8 * static_cast<double>(o.bytes());
    t.seconds += o.seconds;
    t.mean_error += o.error.relative_error / static_cast<double>(work.quantized.size());
    t.mean_column_error += o.error.weighted_relative_error / static_cast<double>(work.quantized.size());
    if (t.worst == nullptr || o.error.relative_error > t.worst->error.relative_error) t.worst = &o;
  }
  return t;
}

json tensors_json(const quantize_job& work) {
  json list = json::array();
  auto next = work.quantized.begin();
  for (std::size_t i = 0; i < work.plan.size(); ++i) {
    const io::tensor_info& info = work.input.tensors()[i].info;
    json entry{{"name", info.name},
               {"dtype", to_string(info.type)},
               {"shape", info.shape},
               {"bytes_before", info.size_bytes()},
               {"quantized", work.plan[i].quantized()}};
    if (!work.plan[i].quantized()) {
      entry.update({{"reason", work.plan[i].reason}, {"bytes_after", info.size_bytes()}});
    } else if (next != work.quantized.end()) {
      const quantize_outcome& o = *next++;
      entry.update({{"method", o.method},
                    {"bits", o.format.bits},
                    {"group_size", o.format.group_size},
                    {"bits_per_weight", o.bits_per_weight()},
                    {"bytes_after", o.bytes()},
                    {"relative_error", o.error.relative_error},
                    {"column_normalized_error", o.error.weighted_relative_error},
                    {"mse", o.error.mse},
                    {"max_error", o.error.max_error},
                    {"cosine", o.error.cosine},
                    {"snr_db", o.error.snr_db},
                    {"seconds", o.seconds}});
    } else {
      entry["bits"] = work.plan[i].bits;
    }
    list.push_back(std::move(entry));
  }
  return list;
}

} // namespace

json quantize_document(const quantize_job& work, std::size_t bytes_after) {
  const job_totals t = sum_up(work);
  json doc = report_head("quantize");
  doc["input"] = work.asked.input;
  doc["output"] = work.asked.output;
  doc["dry_run"] = work.asked.dry_run;
  doc["options"] = options_json(work.asked);
  doc["tensors"] = tensors_json(work);
  doc["totals"] = {{"quantized", work.quantized.size()},
                   {"kept", work.plan.size() - work.quantized.size()},
                   {"weights", t.weights},
                   {"bits_per_weight", t.bits / t.weights},
                   {"bytes_before", model_bytes(work.input)},
                   {"bytes_after", bytes_after}};
  if (work.asked.dry_run) return doc;
  doc["totals"].update({{"mean_relative_error", t.mean_error},
                        {"mean_column_normalized_error", t.mean_column_error},
                        {"worst_relative_error", t.worst->error.relative_error},
                        {"worst_tensor", t.worst->name},
                        {"gparams_per_second", t.weights / t.seconds * 1e-9},
                        {"peak_memory_bytes", peak_memory_bytes()},
                        {"seconds", work.clock.seconds()}});
  return doc;
}

void print_summary(const quantize_job& work, std::size_t bytes_after) {
  const job_totals t = sum_up(work);
  const double before = static_cast<double>(model_bytes(work.input));
  text_table table{{{"result", text_table::align::left}, {work.asked.method, text_table::align::left}}};
  table.add({"tensors quantized", fmt::format("{}", work.quantized.size())});
  table.add({"tensors kept", fmt::format("{}", work.plan.size() - work.quantized.size())});
  table.add({"weights quantized", fmt::format("{:.4g} million", t.weights * 1e-6)});
  table.add({"bits per weight", fmt::format("{:.3f}", t.bits / t.weights)});
  table.add({"files before", bytes_text(model_bytes(work.input))});
  table.add({"files after",
             fmt::format("{} ({:.1f} %)", bytes_text(bytes_after), 100 * static_cast<double>(bytes_after) / before)});
  table.add({"relative error, mean", fmt::format("{:.5f}", t.mean_error)});
  table.add(
      {"relative error, worst", fmt::format("{:.5f} in {}", t.worst->error.relative_error, one_line(t.worst->name))});
  table.add({"column-normalized error, mean", fmt::format("{:.5f}", t.mean_column_error)});
  table.add({"speed of quantizing", fmt::format("{:.4f} Gparam/s", t.weights / t.seconds * 1e-9)});
  table.add({"peak memory", bytes_text(peak_memory_bytes())});
  table.add({"time", fmt::format("{:.2f} s", work.clock.seconds())});
  fmt::print("{}", table.to_string());
}

std::size_t planned_bytes(const quantize_job& work) {
  std::size_t sum = 0;
  for (std::size_t i = 0; i < work.plan.size(); ++i)
    if (!work.plan[i].quantized()) sum += work.input.tensors()[i].info.size_bytes();
  for (const quantize_outcome& o : work.quantized) sum += o.bytes();
  return sum;
}

void print_plan(const quantize_job& work) {
  using side = text_table::align;
  text_table table{{{"tensor", side::left},
                    {"dtype", side::left},
                    {"shape", side::left},
                    {"bits", side::left},
                    {"before"},
                    {"after"},
                    {"bits/weight"}}};
  std::size_t before = 0;
  auto next = work.quantized.begin();
  for (std::size_t i = 0; i < work.plan.size(); ++i) {
    const io::tensor_info& info = work.input.tensors()[i].info;
    const bool quantized = work.plan[i].quantized();
    const std::size_t bytes = quantized ? next->bytes() : info.size_bytes();
    table.add({one_line(info.name), std::string{to_string(info.type)}, io::to_string(info.shape),
               quantized ? fmt::format("{}", next->format.bits) : fmt::format("kept: {}", work.plan[i].reason),
               bytes_text(info.size_bytes()), bytes_text(bytes),
               quantized ? fmt::format("{:.3f}", (next++)->bits_per_weight()) : ""});
    before += info.size_bytes();
  }
  const job_totals t = sum_up(work);
  table.add_rule();
  table.add({fmt::format("{} tensors, {} quantized", work.plan.size(), work.quantized.size()), "", "", "",
             bytes_text(before), bytes_text(planned_bytes(work)), fmt::format("{:.3f}", t.bits / t.weights)});
  fmt::print("{}", table.to_string());
}

} // namespace sinq_cli
