/// sinq_bench_limits: how fast this machine reads memory and multiplies.

#include "measure/huge_memory.hpp"
#include "measure/limits.hpp"
#include "measure/machine.hpp"
#include "measure/program.hpp"

#include "sinq_cli/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace sinq_bench {

namespace {

using sinq_cli::text_table;

/// One line of the table.
struct line {
  std::string name, unit;
  std::size_t threads;
};

/// Everything that is measured, in the order of the table.
struct plan {
  std::vector<line> lines;
  std::vector<subject> subjects;

  void add(const line& l, double work, std::function<void()> call) {
    lines.push_back(l);
    subjects.push_back({.call = std::move(call), .work = work});
  }
};

void add_reads(plan& to, std::span<const sinq::byte> memory, const machine& on, std::size_t threads,
               sinq::executor& pool) {
  const auto add_cache = [&](const char* name, std::size_t bytes) {
    const std::span<const sinq::byte> part = memory.first(std::min(bytes, memory.size()));
    const std::size_t times = std::max<std::size_t>(1, (std::size_t{1} << 26) / part.size());
    to.add({fmt::format("read {}, {}", sinq_cli::bytes_text(part.size()), name), "GB/s", threads},
           static_cast<double>(part.size() * times) / 1e9, [=, &pool] { read_again(part, times, pool); });
  };
  add_cache("half of L2", (on.l2_bytes != 0 ? on.l2_bytes : std::size_t{1} << 20) / 2 * threads);
  add_cache("half of L3", (on.l3_bytes != 0 ? on.l3_bytes : std::size_t{32} << 20) / 2);
  for (const std::size_t streams : {std::size_t{1}, most_streams})
    to.add({fmt::format("read {}, {} stream{}", sinq_cli::bytes_text(memory.size()), streams, streams == 1 ? "" : "s"),
            "GB/s", threads},
           static_cast<double>(memory.size()) / 1e9, [=, &pool] { read(memory, streams, pool); });
}

void add_products(plan& to, std::size_t threads, sinq::executor& pool, double turn_seconds) {
  for (const peak& p : peaks()) {
    const std::size_t steps = steps_of(p, turn_seconds);
    to.add({std::string{p.name}, "Gproducts/s", threads}, p.products * static_cast<double>(steps * threads) / 1e9,
           [=, &p, &pool] { run(p, steps, pool); });
  }
}

void print(const plan& p) {
  text_table table{{{"limit", text_table::align::left}, {"threads"}, {"median"}, {"least"}, {"most"}, {"unit"}}};
  for (std::size_t n = 0; n < p.lines.size(); ++n) {
    const line& l = p.lines[n];
    const spread s = spread_of(p.subjects[n].rates());
    table.add({l.name, fmt::to_string(l.threads), fmt::format("{:.2f}", s.median), fmt::format("{:.2f}", s.least),
               fmt::format("{:.2f}", s.most), l.unit});
  }
  fmt::print("{}\na product: one multiplication and the addition of its result\n", table.to_string());
}

nlohmann::ordered_json to_json(const plan& p, const machine& on) {
  nlohmann::ordered_json lines = nlohmann::ordered_json::array();
  for (std::size_t n = 0; n < p.lines.size(); ++n)
    lines.push_back({{"limit", p.lines[n].name},
                     {"threads", p.lines[n].threads},
                     {"unit", p.lines[n].unit},
                     {"rate", to_json(spread_of(p.subjects[n].rates()))}});
  return {{"machine", on.to_json()}, {"limits", lines}};
}

sinq::result<void> run_limits(const common_flags& f) {
  const machine on = this_machine();
  fmt::print("{}\n{} rounds\n\n", on.to_string(), f.rounds);
  const huge_memory memory{f.bytes};
  std::memset(memory.span().data(), 1, memory.span().size());
  pools threads;
  plan p;
  for (const std::size_t count : f.threads) {
    add_reads(p, memory.span(), on, count, threads.of(count));
    add_products(p, count, threads.of(count), f.turn_ms / 1e3);
  }
  run_rounds(p.subjects, f.round());
  print(p);
  return write_json(f.json, to_json(p, on));
}

action set_up(CLI::App& app) {
  const auto f = std::make_shared<common_flags>();
  add_common_flags(app, *f);
  return [f] { return run_limits(*f); };
}

} // namespace

} // namespace sinq_bench

int main(int argc, char** argv) {
  return sinq_bench::run_program("sinq_bench_limits", "Measures how fast this machine reads memory and multiplies.",
                                 argc, argv, sinq_bench::set_up);
}
