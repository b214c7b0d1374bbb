#include "engine_flags.hpp"

#include "quantizer_flags.hpp"

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

sinq::result<running_model> running_model::open(const std::string& directory, const engine_flags& flags,
                                                std::shared_ptr<sinq::executor> threads) {
  running_model opened;
  opened.threads_ = std::move(threads);
  opened.with_ = {.threads = opened.threads_.get(),
                  .precision = flags.precision == "exact"  ? sinq::precision::exact
                               : flags.precision == "int8" ? sinq::precision::int8
                                                           : sinq::precision::automatic};
  engine::layer_quantizer quantize;
  if (!flags.method.empty())
    quantize = [&](const std::string&) {
      sinq::quantize_options options;
      options.method = *sinq::parse_method(flags.method);
      options.bits = flags.bits;
      options.group_size = flags.group_size;
      return options;
    };
  auto model = engine::model::open(directory, opened.with_, quantize);
  if (!model) return std::move(model).error();
  opened.model_ = std::make_shared<engine::model>(*std::move(model));
  return opened;
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

} // namespace sinq_cli
