#pragma once

/// What the programs share beside their measurements.

#include "rounds.hpp"

#include <sinq/core/error.hpp>
#include <sinq/core/parallel.hpp>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace sinq_bench {

/// Flags that every program has.
struct common_flags {
  std::vector<std::size_t> threads; ///< numbers of threads, each measured
  std::size_t rounds = 7;
  double turn_ms = 20;
  std::size_t bytes = std::size_t{1} << 30; ///< of memory, at least, before any of it is read again
  std::string json;

  [[nodiscard]] round_options round() const { return {.rounds = rounds, .least_seconds = turn_ms / 1e3}; }
};

/// Adds --threads, --rounds, --turn-ms, --bytes and --json; threads are 1 and all there are.
void add_common_flags(CLI::App& app, common_flags& f);

/// What a program does once its command line is parsed.
using action = std::function<sinq::result<void>()>;

/// Parses the command line, acts and gives the exit status; what fails is one line on stderr.
/// @param set_up  adds the flags
[[nodiscard]] int run_program(const char* name, const char* summary, int argc, char** argv,
                              action (*set_up)(CLI::App&));

/// Writes a document to a file that appears whole or not at all. An empty path: does nothing.
[[nodiscard]] sinq::result<void> write_json(const std::string& path, const nlohmann::ordered_json& document);

/// A spread as JSON, each number times `unit`.
[[nodiscard]] nlohmann::ordered_json to_json(const spread& s, double unit = 1);

/// "12.3 [12.1..12.9]".
[[nodiscard]] std::string to_string(const spread& s, int decimals, double unit = 1);

/// A pool for each number of threads.
class pools {
public:
  [[nodiscard]] sinq::executor& of(std::size_t threads) {
    std::unique_ptr<sinq::thread_pool>& pool = pools_[threads];
    if (!pool) pool = std::make_unique<sinq::thread_pool>(threads);
    return *pool;
  }

private:
  std::map<std::size_t, std::unique_ptr<sinq::thread_pool>> pools_;
};

} // namespace sinq_bench
