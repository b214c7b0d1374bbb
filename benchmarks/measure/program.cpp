#include "program.hpp"

#include "sinq_cli/text.hpp"

#include <sinq/core/isa.hpp>
#include <sinq/io/output_file.hpp>

#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <thread>

namespace sinq_bench {

using sinq::result;

void add_common_flags(CLI::App& app, common_flags& f) {
  f.threads = {1};
  if (const std::size_t all = std::thread::hardware_concurrency(); all > 1) f.threads.push_back(all);
  app.add_option("--threads", f.threads, "Numbers of threads, each measured")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--rounds", f.rounds, "Rounds, in each of which everything is run once")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--turn-ms", f.turn_ms, "Calls that are shorter are repeated for so long in each round")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--bytes", f.bytes, "Memory that is gone through before any of it is read again")
      ->transform(CLI::AsSizeValue{false})
      ->capture_default_str();
  app.add_option("--json", f.json, "Write everything to this file")->type_name("FILE");
}

int run_program(const char* name, const char* summary, int argc, char** argv, action (*set_up)(CLI::App&)) {
  const auto fail = [&](std::string_view message) {
    fmt::print(stderr, "{}: error: {}\n", name, sinq_cli::one_line(message));
    return 1;
  };
  try {
    CLI::App app{summary, name};
    const action act = set_up(app);
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& failure) {
      return app.exit(failure);
    }
    result<void> done = sinq::check_isa();
    if (done) done = act();
    if (!done) return fail(done.error().message);
  } catch (const std::exception& failure) {
    return fail(failure.what());
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) return fail("standard output cannot be written");
  return 0;
}

result<void> write_json(const std::string& path, const nlohmann::ordered_json& document) {
  if (path.empty()) return {};
  auto file = sinq::io::output_file::create(path);
  if (!file) return std::move(file).error();
  const std::string text = document.dump(2) + "\n";
  if (auto done = file->write(std::as_bytes(std::span{text})); !done) return done;
  return file->commit();
}

nlohmann::ordered_json to_json(const spread& s, double unit) {
  return {{"median", s.median * unit}, {"least", s.least * unit}, {"most", s.most * unit}};
}

std::string to_string(const spread& s, int decimals, double unit) {
  return fmt::format("{:.{}f} [{:.{}f}..{:.{}f}]", s.median * unit, decimals, s.least * unit, decimals, s.most * unit,
                     decimals);
}

} // namespace sinq_bench
