/// sinq_bench_matmul: tokens times packed weights, beside the machine's limits and other libraries.

#include "report.hpp"

#include "support/random_matrices.hpp"

#include <sinq/quant/presets.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <deque>

namespace sinq_bench {

namespace {

using sinq::result;

struct flags {
  common_flags common;
  std::size_t rows = 4096, cols = 4096, group_size = 64;
  std::vector<int> bits{4};
  std::vector<std::string> grids{"uniform"}, precisions{"exact", "int8"}, aux{"f16"};
  std::vector<std::size_t> tokens{1, 4, 8, 16, 64, 512};
  bool peers = false;
};

/// Every combination that there is: NF4 has 4 bits, and a preset has bits of its own.
std::vector<weight_choice> choices(const flags& f) {
  std::vector<weight_choice> all;
  for (const std::string& aux : f.aux)
    for (const std::string& name : f.grids) {
      const sinq::grid grid = name == "nf4" ? sinq::grid::nf4 : sinq::grid::uniform;
      const auto preset = sinq::parse_preset(aux);
      for (const int bits : preset ? std::vector{preset->bits} : f.bits)
        if (grid == sinq::grid::uniform || bits == 4)
          all.push_back(
              {.rows = f.rows, .cols = f.cols, .grid = grid, .bits = bits, .group_size = f.group_size, .aux = aux});
    }
  return all;
}

/// Stops at products that are wrong, before anything is timed.
result<std::vector<product>> checked_products(const flags& f, const std::vector<contender>& contenders,
                                              const tokens_io& io) {
  std::vector<product> all;
  for (const std::size_t threads : f.common.threads)
    for (const contender& c : contenders)
      for (const std::size_t tokens : f.tokens) {
        std::fill_n(io.y.data(), io.y.rows() * io.y.cols(), 0.0f);
        c.multiply(tokens, threads);
        const output_error error = (*c.expected)(io.y.block(0, 0, tokens, io.y.cols()));
        if (!(error.worst <= c.worst_error))
          return sinq::make_error(sinq::errc::not_representable, c.name, ", ", c.weights, ", ", tokens, " tokens, ",
                                  threads, " threads: an output is off by ", error.worst,
                                  " root mean squares, expected at most ", c.worst_error);
        all.push_back({&c, tokens, threads, error.relative});
      }
  return all;
}

result<void> run_matmul(const flags& f) {
  const std::vector<weight_choice> chosen = choices(f);
  if (chosen.empty()) return sinq::make_error(sinq::errc::invalid_argument, "no weights are left: NF4 has 4 bits");
  const machine on = this_machine();
  fmt::print("{}\n{} x {} weights, {} rounds, {} MiB of matrices in turns\n", on.to_string(), f.rows, f.cols,
             f.common.rounds, f.common.bytes >> 20);
  const std::size_t most_tokens = *std::max_element(f.tokens.begin(), f.tokens.end());
  const sinq_test::matrix x = sinq_test::gaussian(most_tokens, f.cols, 2, 1.0);
  sinq_test::matrix y{most_tokens, f.rows};
  const tokens_io io{x.view(), y.view()};

  pools threads;
  std::deque<weight_set> sets;
  std::vector<contender> contenders;
  for (const weight_choice& choice : chosen) {
    auto set = make_weights(choice, f.common.bytes);
    if (!set) return std::move(set).error();
    sets.push_back(*std::move(set));
    const auto expected = std::make_shared<const expected_rows>(sets.back().packed, io.x);
    for (const std::string& name : f.precisions)
      contenders.push_back(
          ours(sets.back(), name == "int8" ? sinq::precision::int8 : sinq::precision::exact, io, threads, expected));
  }
  std::optional<dense_weights> dense;
  if (f.peers) {
    dense.emplace(sets.front().packed, f.common.bytes);
    const auto found = peers({*dense, io, threads, contenders.front().expected});
    contenders.insert(contenders.end(), found.begin(), found.end());
  }
  const auto products = checked_products(f, contenders, io);
  if (!products) return products.error();
  const report found = measure(*products, f.common, threads, static_cast<double>(f.rows * f.cols));
  fmt::print("\n{}", found.to_string());
  return write_json(f.common.json, found.to_json(on, f.rows, f.cols));
}

void add_flags(CLI::App& app, flags& f) {
  std::vector<std::string> aux{"f16"};
  for (const sinq::preset& p : sinq::preset_table) aux.emplace_back(p.name);
  const auto list = [&app](const char* name, auto& values, const char* what) {
    return app.add_option(name, values, what)->delimiter(',')->capture_default_str();
  };
  app.add_option("--rows", f.rows, "Outputs")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--cols", f.cols, "Inputs")->check(CLI::PositiveNumber)->capture_default_str();
  list("--bits", f.bits, "Bits of a code")->check(CLI::IsMember({2, 3, 4, 5, 6, 8}));
  app.add_option("--group-size", f.group_size, "Columns that share a scale")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  list("--grid", f.grids, "uniform, nf4")->check(CLI::IsMember({"uniform", "nf4"}));
  list("--precision", f.precisions, "exact, int8")->check(CLI::IsMember({"exact", "int8"}));
  list("--aux", f.aux, "f16, or a preset, which has bits and group size of its own")->check(CLI::IsMember(aux));
  list("--tokens", f.tokens, "Numbers of tokens")->check(CLI::PositiveNumber);
  app.add_flag("--peers", f.peers, "Other libraries too, on the first weights restored to floats");
  add_common_flags(app, f.common);
}

action set_up(CLI::App& app) {
  const auto f = std::make_shared<flags>();
  add_flags(app, *f);
  return [f] { return run_matmul(*f); };
}

} // namespace

} // namespace sinq_bench

int main(int argc, char** argv) {
  return sinq_bench::run_program("sinq_bench_matmul",
                                 "Times matmul on packed weights against the limits of the machine.", argc, argv,
                                 sinq_bench::set_up);
}
