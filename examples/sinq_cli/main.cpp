/// sinq: quantizes the weights of a model in files, shows what became of them, and runs it.

#include "command.hpp"
#include "signals.hpp"
#include "text.hpp"

#include <sinq/core/config.hpp>
#include <sinq/core/isa.hpp>

#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <string_view>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace {

constexpr int failure_status = 1;
constexpr int cancelled_status = 130;

constexpr const char* examples = R"(Examples:
  sinq quantize model.safetensors -o quantized.safetensors
  sinq quantize MODEL_DIR -o OUT_DIR --bits 3 --exclude 'layers\.0\.' --bits-for 'down_proj=4'
  sinq quantize MODEL_DIR --dry-run
  sinq verify OUT_DIR --against MODEL_DIR
  sinq dequantize OUT_DIR -o PLAIN_DIR --shard-size 2GB
  sinq compare model.safetensors --bits 4 --bits 3
  sinq run OUT_DIR --prompt 'Once upon a time'
  sinq compare-models OUT_DIR --against MODEL_DIR --text book.txt
)";

int fail(std::string_view message, int status = failure_status) {
  // a message is one line, whatever stands in the names and paths that it quotes
  const std::string line = fmt::format("sinq: error: {}\n", sinq_cli::one_line(message));
  std::fputs(line.c_str(), stderr);
  return status;
}

/// Gives every large buffer back to the system when it is freed. Left to itself, glibc 2.36 keeps them, and its
/// aligned allocations never fit the holes that earlier ones left: memory would grow with the number of tensors.
void return_freed_memory() {
#ifdef __GLIBC__
  constexpr int large_bytes = 1 << 18;
  mallopt(M_MMAP_THRESHOLD, large_bytes);
  mallopt(M_TRIM_THRESHOLD, large_bytes);
#endif
}

int run(int argc, char** argv) {
  return_freed_memory();
  CLI::App app{"Quantizes the weights of a model with SINQ (Sinkhorn-normalized quantization) or round-to-nearest.",
               "sinq"};
  app.set_version_flag("--version", "sinq " SINQ_VERSION_STRING);
  app.footer(examples);
  app.require_subcommand(1);
  app.failure_message([](const CLI::App*, const CLI::Error& failure) {
    return fmt::format("sinq: error: {} (see --help)\n", sinq_cli::one_line(failure.what()));
  });
  const std::array commands{sinq_cli::add_quantize(app), sinq_cli::add_dequantize(app),
                            sinq_cli::add_dump(app),     sinq_cli::add_inspect(app),
                            sinq_cli::add_compare(app),  sinq_cli::add_verify(app),
                            sinq_cli::add_run(app),      sinq_cli::add_perplexity(app),
                            sinq_cli::add_score(app),    sinq_cli::add_compare_models(app),
                            sinq_cli::add_calibrate(app)};
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& failure) {
    return app.exit(failure);
  }
  if (const sinq::result<void> known = sinq::check_isa(); !known) return fail(known.error().message);
  sinq_cli::catch_signals();
  for (const sinq_cli::command& command : commands) {
    if (!command.app->parsed()) continue;
    const sinq::result<void> done = command.run();
    if (!done && done.error().code == sinq::errc::cancelled) return fail("cancelled", cancelled_status);
    if (!done) return fail(done.error().message);
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) return fail("standard output cannot be written");
  return 0;
}

} // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::bad_alloc&) {
    return fail("out of memory");
  } catch (const std::exception& failure) {
    return fail(failure.what());
  } catch (...) {
    return fail("unknown exception");
  }
}
