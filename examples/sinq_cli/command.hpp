#pragma once

#include <sinq/core/error.hpp>

#include <CLI/CLI.hpp>

#include <functional>

namespace sinq_cli {

/// One command of the tool: its options, and what it does once they are parsed. Each is in the file of its name.
struct command {
  CLI::App* app;
  std::function<sinq::result<void>()> run;
};

[[nodiscard]] command add_quantize(CLI::App& app);
[[nodiscard]] command add_dequantize(CLI::App& app);
[[nodiscard]] command add_dump(CLI::App& app);
[[nodiscard]] command add_inspect(CLI::App& app);
[[nodiscard]] command add_compare(CLI::App& app);
[[nodiscard]] command add_verify(CLI::App& app);
[[nodiscard]] command add_run(CLI::App& app);
[[nodiscard]] command add_perplexity(CLI::App& app);
[[nodiscard]] command add_score(CLI::App& app);
[[nodiscard]] command add_compare_models(CLI::App& app);
[[nodiscard]] command add_calibrate(CLI::App& app);

} // namespace sinq_cli
