#include "quantizer_flags.hpp"

namespace sinq_cli {

void add_threads_flag(CLI::App& app, std::size_t& threads) {
  app.add_option("--threads", threads, "Threads; without this, one for each hardware thread")
      ->check(CLI::Range(1, 1024));
}

void add_quantizer_flags(CLI::App& app, quantizer_flags& flags) {
  app.add_option("--group-size", flags.group_size, "Columns that share a scale")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--aux-dtype", flags.aux, "Type of scales, zero points and column scales")
      ->check(CLI::IsMember({"f16", "bf16", "f32"}))
      ->capture_default_str();
  app.add_flag("--symmetric", flags.symmetric, "No zero points: levels centred on 0");
  app.add_option("--zero", flags.zero, "Zero points: rounded to whole steps, or fractional")
      ->check(CLI::IsMember({"rounded", "fractional"}))
      ->capture_default_str();
  app.add_option("--iterations", flags.iterations, "Sinkhorn iterations, at most")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str();
  add_threads_flag(app, flags.threads);
}

std::vector<std::string> method_names() {
  std::vector<std::string> names;
  for (const sinq::method_info& entry : sinq::method_table) names.emplace_back(entry.name);
  return names;
}

sinq::quantize_options to_options(const quantizer_flags& flags) {
  sinq::quantize_options options;
  options.group_size = flags.group_size;
  options.aux = flags.aux == "f16"    ? sinq::aux_dtype::f16
                : flags.aux == "bf16" ? sinq::aux_dtype::bf16
                                      : sinq::aux_dtype::f32;
  options.symmetric = flags.symmetric;
  options.zero = flags.zero == "rounded" ? sinq::zero_mode::rounded : sinq::zero_mode::fractional;
  options.sinkhorn.iterations = flags.iterations;
  return options;
}

sinq::result<sinq::matrix_format> planned_format(sinq::quantize_options options, std::size_t rows, std::size_t cols) {
  // whether a method stores t is seen in what it makes of a single weight
  sinq::serial_executor here;
  options.run = {.threads = &here, .progress = {}};
  const float weight = 1.0f;
  const auto q = sinq::quantize(sinq::matrix_view<const float>{&weight, 1, 1}, options);
  if (!q) return q.error();
  sinq::matrix_format format = q->format;
  format.rows = rows;
  format.cols = cols;
  return format;
}

} // namespace sinq_cli
