#include "command.hpp"
#include "model_files.hpp"
#include "quantize_tensor.hpp"
#include "report.hpp"
#include "signals.hpp"

#include <algorithm>
#include <memory>

namespace sinq_cli {

namespace {

namespace io = sinq::io;
using sinq::errc;
using sinq::make_error;
using sinq::result;

/// A tensor whose name is that of a part of a quantized one could not be told from it when the output is read.
result<void> check_names(const io::model_reader& input) {
  for (const io::model_tensor& tensor : input.tensors())
    for (const std::string_view suffix : io::part_suffixes)
      if (tensor.info.name.ends_with(suffix))
        return of_tensor(make_error(errc::unsupported, "names that end in ", suffix, " are those of quantized parts"),
                         file_of(input, tensor.info.name), tensor.info.name);
  return {};
}

/// Whether the method has the width that each tensor is to have, and all it needs.
result<void> check_widths(const quantize_job& work) {
  for (std::size_t i = 0; i < work.plan.size(); ++i) {
    if (!work.plan[i].quantized()) continue;
    const std::string& name = work.input.tensors()[i].info.name;
    if (auto possible = check_options(work.options_of(i)); !possible)
      return of_tensor(std::move(possible).error(), file_of(work.input, name), name);
  }
  return {};
}

result<quantize_job> prepare(const quantize_flags& f) {
  if (f.output.empty() && !f.dry_run)
    return make_error(errc::invalid_argument, "quantize: where to write is missing: give -o OUT, or --dry-run");
  if (f.format == "official" && io::parse_layout(f.layout) != io::code_layout::canonical)
    return make_error(errc::invalid_argument, "--layout ", f.layout, " needs --format native: the official format has ",
                      "a layout of its own");
  auto input = io::model_reader::open(f.input);
  if (!input) return std::move(input).error();
  if (input->metadata().contains(std::string{io::checkpoint_version_key}) || io::is_official(*input))
    return make_error(errc::invalid_argument, f.input,
                      ": is quantized already; give the original model, or what sinq dequantize makes of this one");
  if (auto named = check_names(*input); !named) return std::move(named).error();
  auto inputs = calibration::open(moments_path(f.quantizer));
  if (!inputs) return std::move(inputs).error();
  auto self = self_refinement::prepare(f, *input);
  if (!self) return std::move(self).error();
  quantize_job work{f, to_options(f.quantizer), *std::move(input), *std::move(inputs), {}, {}, {}};
  work.self = *std::move(self);
  work.options.method = sinq::parse_method(f.method).value(); // one of method_names()
  work.options.compat = f.compat == "none" ? sinq::compat::none : sinq::compat::official;
  work.options.quant_aux = f.compat == "official-aux";
  if (f.quantizer.preset.empty()) work.options.bits = f.bits;
  auto plan = choose_tensors(work.input, work.options.bits, f.choice);
  if (!plan) return std::move(plan).error().in(f.input);
  work.plan = *std::move(plan);
  if (auto possible = check_widths(work); !possible) return std::move(possible).error();
  if (std::none_of(work.plan.begin(), work.plan.end(), [](const auto& entry) { return entry.quantized(); }))
    return make_error(errc::invalid_argument, f.input, ": nothing to quantize: none of its ", work.plan.size(),
                      " tensors is a floating-point matrix that is not left alone by its name or --exclude; see "
                      "--dry-run of another model, or name tensors with --include");
  return work;
}

/// Makes ready for the official format, which cannot hold everything: tells so before anything is written.
result<void> prepare_official(quantize_job& work) {
  if (work.asked.format != "official") return {};
  auto writer = io::official_writer::prepare(work.input);
  if (!writer) return std::move(writer).error();
  work.official = *std::move(writer);
  for (std::size_t i = 0; i < work.plan.size(); ++i) {
    const io::tensor_info& info = work.input.tensors()[i].info;
    if (!work.plan[i].quantized()) continue;
    auto possible =
        io::check_official(info.name, sinq::planned_format(work.options_of(i), info.shape[0], info.shape[1]));
    if (!possible) return of_tensor(std::move(possible).error(), file_of(work.input, info.name), info.name);
  }
  return {};
}

/// Writes all tensors: those whose inputs are measured after the others.
result<void> write_tensors(quantize_job& work, io::model_writer& to) {
  const auto tensors = work.input.tensors();
  double total = work.self ? measuring_work(work) : 0;
  for (std::size_t i = 0; i < tensors.size(); ++i)
    total += static_cast<double>(tensors[i].info.size_bytes()) * (work.plan[i].quantized() ? 1 : copy_work);
  progress_bar progress{total, work.asked.quiet};
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (auto on = check_goes_on(); !on) return on;
    if (!work.plan[i].quantized()) {
      if (auto done = keep_tensor(work, i, to, progress); !done) return done;
    } else if (!work.measures(i)) {
      if (auto done = quantize_tensor(work, i, nullptr, to, progress); !done) return std::move(done).error();
    }
  }
  if (!work.self) return {};
  if (auto done = quantize_decoder(work, to, progress); !done) return done;
  std::sort(work.quantized.begin(), work.quantized.end(), [&](const quantize_outcome& a, const quantize_outcome& b) {
    return work.input.find(a.name) < work.input.find(b.name);
  });
  return {};
}

/// Writes what is no tensor.
result<void> write_rest(quantize_job& work, io::model_writer& to) {
  if (!work.official) return copy_side_files(work.input, to);
  if (auto done = work.official->finish(to); !done) return done;
  return copy_side_files(work.input, to, std::string{io::config_name});
}

/// Finds what the outcomes would be, but for errors and times.
void plan_outcomes(quantize_job& work) {
  for (std::size_t i = 0; i < work.plan.size(); ++i) {
    if (!work.plan[i].quantized()) continue;
    const io::tensor_info& info = work.input.tensors()[i].info;
    const sinq::matrix_format format = sinq::planned_format(work.options_of(i), info.shape[0], info.shape[1]);
    work.quantized.push_back({info.name, info.type, format, work.layout(), work.asked.method, {}, 0});
  }
}

result<void> dry_run(quantize_job& work, json_report& report) {
  plan_outcomes(work);
  if (!work.asked.output.empty())
    if (auto differs = check_output(work.input, work.asked.output); !differs) return differs;
  if (!work.asked.quiet) print_plan(work);
  if (auto done = report.write(quantize_document(work, planned_bytes(work))); !done) return done;
  return report.commit();
}

result<void> run(const quantize_flags& f) {
  auto work = prepare(f);
  if (!work) return std::move(work).error();
  if (auto differs = check_report(work->input, f.report, f.output); !differs) return differs;
  auto report = json_report::create(f.report);
  if (!report) return std::move(report).error();
  if (auto possible = prepare_official(*work); !possible) return possible;
  if (f.dry_run) return dry_run(*work, *report);
  auto writer = create_output(work->input, f.output, f.shard_size, work->official.has_value());
  if (!writer) return std::move(writer).error();
  sinq::thread_pool pool{f.quantizer.threads};
  work->options.run.threads = &pool;
  if (!work->official)
    if (auto done = io::begin_checkpoint(*writer); !done) return done;
  if (auto done = write_tensors(*work, *writer); !done) return done;
  if (auto done = write_rest(*work, *writer); !done) return done;
  if (auto done = writer->commit(); !done) return done;
  const auto written = io::model_reader::open(f.output);
  if (!written) return written.error();
  const std::size_t bytes_after = model_bytes(*written);
  if (auto done = report->write(quantize_document(*work, bytes_after)); !done) return done;
  if (auto done = report->commit(); !done) return done;
  if (!f.quiet) print_summary(*work, bytes_after);
  return {};
}

} // namespace

command add_quantize(CLI::App& app) {
  const auto f = std::make_shared<quantize_flags>();
  CLI::App* const c = app.add_subcommand("quantize", "Quantize a model: a file to a file, a directory to a directory");
  c->add_option("IN", f->input, "A .safetensors file, or a Hugging Face model directory")->required();
  c->add_option("-o,--output", f->output, "The file or directory to write");
  c->add_option("--method", f->method, "How to quantize")->check(CLI::IsMember(method_names()))->capture_default_str();
  CLI::Option* const bits = c->add_option("--bits", f->bits, "Bits of a code; nf3 has but 3")
                                ->check(CLI::IsMember({2, 3, 4, 5, 6, 8}))
                                ->capture_default_str();
  c->add_option("--format", f->format, "Format of the output: our own, or that of the official sinq package")
      ->check(CLI::IsMember({"native", "official"}))
      ->capture_default_str();
  c->add_option("--layout", f->layout, "Layout of codes and scales in our own format; panels: what matmul reads")
      ->check(CLI::IsMember(std::vector<std::string>{io::layout_names.begin(), io::layout_names.end()}))
      ->capture_default_str();
  c->add_option("--compat", f->compat,
                "Results of the official package, quirks and all; -aux: with its 8-bit scales and zero points")
      ->check(CLI::IsMember({"none", "official", "official-aux"}))
      ->capture_default_str();
  add_quantizer_flags(*c, f->quantizer);
  add_self_flags(*c, f->self);
  add_choice_flags(*c, f->choice);
  c->add_option("--shard-size", f->shard_size, "Most bytes of a directory's files, such as 5GB, which is the default");
  c->add_flag("--dry-run", f->dry_run, "Print what would be done, and write nothing");
  c->add_flag("--quiet", f->quiet, "Print nothing but errors");
  c->add_option("--json", f->report, "Write what was done and found to this file")->type_name("FILE");
  c->footer("A name matches REGEX if any part of it does.\n"
            "Example: sinq quantize MODEL_DIR -o OUT_DIR --bits 3 --bits-for 'down_proj|layers\\.0\\.=4'");
  return {c, [f, bits] {
            const int only = sinq::info(sinq::parse_method(f->method).value()).bits;
            if (bits->count() == 0 && only != 0) f->bits = only;
            return run(*f);
          }};
}

} // namespace sinq_cli
