#include "engine_flags.hpp"

#include "model_files.hpp"
#include "progress.hpp"
#include "quantizer_flags.hpp"
#include "signals.hpp"

#include <sinq/io/mapped_file.hpp>

namespace sinq_cli {

void add_engine_flags(CLI::App& app, engine_flags& flags) {
  app.add_option("--precision", flags.precision,
                 "What activations of quantized layers are multiplied as: floats (exact), bytes (int8), or bytes where "
                 "codes have up to 5 bits (auto)")
      ->check(CLI::IsMember({"auto", "exact", "int8"}))
      ->capture_default_str();
  CLI::Option* const method = app.add_option("--method", flags.method, "Quantize float layers of the decoder on load")
                                  ->check(CLI::IsMember(method_names()));
  app.add_option("--bits", flags.bits, "Bits of --method")->needs(method)->check(CLI::IsMember({2, 3, 4, 5, 6, 8}));
  app.add_option("--group-size", flags.group_size, "Columns that share a scale, of --method")
      ->needs(method)
      ->check(CLI::PositiveNumber);
  add_threads_flag(app, flags.threads);
}

sinq::result<engine::model> open_model(const std::string& directory, const engine_flags& flags,
                                       sinq::executor& threads) {
  const engine::compute with{.threads = &threads, .precision = engine::parse_precision(flags.precision)};
  if (flags.method.empty()) return engine::model::open(directory, with);
  return engine::model::open(directory, with, [&](const std::string&) {
    sinq::quantize_options options;
    options.method = *sinq::parse_method(flags.method);
    options.bits = flags.bits;
    options.group_size = flags.group_size;
    return options;
  });
}

sinq::result<std::vector<std::vector<int>>> windows_of(const std::string& path, const engine::tokenizer& tokenizer,
                                                       std::size_t length, std::size_t most) {
  const auto file = sinq::io::mapped_file::open(path);
  if (!file) return file.error();
  const std::span<const sinq::byte> bytes = (*file)->bytes();
  const auto tokens = tokenizer.encode({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  if (!tokens) return sinq::error{tokens.error()}.in(path);
  std::size_t count = tokens->size() / length;
  if (most != 0) count = std::min(count, most);
  if (count == 0)
    return sinq::make_error(sinq::errc::invalid_argument, path, ": has ", tokens->size(), " tokens, expected at least ",
                            length, ", a window");
  std::vector<std::vector<int>> windows;
  for (std::size_t w = 0; w < count; ++w) {
    const auto first = tokens->begin() + static_cast<std::ptrdiff_t>(w * length);
    windows.emplace_back(first, first + static_cast<std::ptrdiff_t>(length));
  }
  return windows;
}

void add_scoring_flags(CLI::App& app, scoring_flags& flags) {
  app.add_option("--text", flags.text, "The text")->required();
  app.add_option("--window", flags.window, "Tokens that are seen together; the first is not scored")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  app.add_option("--windows", flags.windows, "Windows from the text's start; without this, all");
  add_engine_flags(app, flags.engine);
  app.add_flag("--quiet", flags.quiet, "Show no progress");
  app.add_option("--json", flags.report, "Write what was found to this file too, with each window's part of it")
      ->type_name("FILE");
}

sinq::result<json_report> create_report(const scoring_flags& flags, std::span<const std::string> models) {
  if (flags.report.empty()) return json_report::create({});
  if (sinq::io::same_file(flags.report, flags.text))
    return sinq::make_error(sinq::errc::invalid_argument, flags.report,
                            ": the JSON report is the same file as the text");
  for (const std::string& directory : models) {
    const auto model = sinq::io::model_reader::open(directory);
    if (!model) return model.error();
    if (auto differs = check_report(*model, flags.report); !differs) return std::move(differs).error();
  }
  return json_report::create(flags.report);
}

nlohmann::json scoring_document(const char* command, const scoring_flags& flags, std::size_t windows) {
  nlohmann::json document = report_head(command);
  document.update({{"text", flags.text},
                   {"window", flags.window},
                   {"windows", windows},
                   {"tokens", windows * (flags.window - 1)},
                   {"precision", flags.engine.precision}});
  return document;
}

sinq::result<void> score_windows(const std::vector<std::vector<int>>& windows, const scoring_flags& flags,
                                 const std::function<sinq::result<void>(std::span<const int>)>& score) {
  progress_bar progress{static_cast<double>(windows.size()), flags.quiet};
  for (const std::vector<int>& window : windows) {
    progress.begin("windows", 0, 1);
    if (auto ok = score(window); !ok) return ok;
    if (auto on = check_goes_on(); !on) return on;
  }
  return {};
}

} // namespace sinq_cli
