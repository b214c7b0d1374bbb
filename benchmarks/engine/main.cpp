/// sinq_bench_engine: how fast a language model reads a prompt and writes, beside the memory's speed.

#include "measure/huge_memory.hpp"
#include "measure/limits.hpp"
#include "measure/machine.hpp"
#include "measure/program.hpp"

#include "sinq_cli/text.hpp"

#include <engine/model.hpp>

#include <fmt/format.h>

#include <cstring>
#include <fstream>
#include <random>

namespace sinq_bench {

namespace {

using sinq::result;
using sinq_cli::text_table;

struct flags {
  common_flags common;
  std::string model, precision = "auto";
  std::size_t prompt = 512, tokens = 16;
  std::vector<std::size_t> contexts{16, 512};
};

/// Bytes of weights that a token reads: all matrices but the table of embeddings.
std::size_t weight_bytes(const engine::model_weights& w) {
  std::size_t sum = w.output.bytes();
  for (const engine::layer_weights& l : w.layers)
    for (const engine::linear* part : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}) sum += part->bytes();
  return sum;
}

/// Bytes of this process in memory, as Linux counts them; 0 elsewhere.
std::size_t resident_bytes() {
  std::ifstream status{"/proc/self/status"};
  for (std::string word; status >> word;)
    if (std::size_t kilobytes = 0; word == "VmRSS:" && status >> kilobytes) return kilobytes << 10;
  return 0;
}

std::size_t file_bytes(const std::filesystem::path& directory) {
  std::size_t sum = 0;
  for (const auto& entry : std::filesystem::directory_iterator{directory})
    if (entry.path().extension() == ".safetensors") sum += entry.file_size();
  return sum;
}

/// What is measured of a model on some threads.
struct plan {
  std::size_t threads;
  std::vector<subject> subjects; ///< the prompt, each context, reading memory
};

/// A model on some threads, with the tokens that it is given and a cache that they fit into.
struct runner {
  engine::model model;
  std::vector<int> tokens;
  engine::kv_cache cache;
  std::vector<float> logits;
  result<void> outcome;

  runner(engine::model opened, std::size_t most)
      : model{std::move(opened)}, tokens(most), cache{model.config(), most}, logits(model.config().vocabulary) {
    std::mt19937 random{1};
    for (int& token : tokens) token = static_cast<int>(random() % model.config().vocabulary);
  }

  void read(std::size_t begin, std::size_t end, std::size_t at_once) {
    cache.resize(begin);
    for (std::size_t n = begin; n < end && outcome; n += at_once)
      outcome = model.forward(std::span{tokens}.subspan(n, at_once), cache, {logits.data(), 1, logits.size()});
  }
};

plan make_plan(const flags& f, runner& r, std::size_t threads, sinq::executor& pool, const huge_memory& memory) {
  plan p{threads, {}};
  p.subjects.push_back({.call = [&] { r.read(0, f.prompt, f.prompt); }, .work = static_cast<double>(f.prompt)});
  for (const std::size_t context : f.contexts)
    p.subjects.push_back(
        {.call = [&r, &f, context] { r.read(context, context + f.tokens, 1); }, .work = static_cast<double>(f.tokens)});
  p.subjects.push_back(
      {.call = [&] { read(memory.span(), most_streams, pool); }, .work = static_cast<double>(memory.span().size())});
  return p;
}

void print(const flags& f, const plan& p, double bytes) {
  text_table table{
      {{"what", text_table::align::left}, {"threads"}, {"tokens/s"}, {"least..most"}, {"GB/s"}, {"of read"}}};
  for (std::size_t n = 0; n + 1 < p.subjects.size(); ++n) {
    const spread rate = spread_of(p.subjects[n].rates());
    const std::string ends = fmt::format("{:.1f}..{:.1f}", rate.least, rate.most);
    const std::string count = fmt::to_string(p.threads), median = fmt::format("{:.1f}", rate.median);
    if (n == 0) {
      table.add({fmt::format("prompt of {} tokens", f.prompt), count, median, ends, "-", "-"});
    } else {
      const double of_read = rate_ratio(p.subjects[n], p.subjects.back()).median * bytes;
      table.add({fmt::format("one token after {}", f.contexts[n - 1]), count, median, ends,
                 fmt::format("{:.2f}", rate.median * bytes / 1e9), fmt::format("{:.3f}", of_read)});
    }
  }
  fmt::print("\n{}read: {} GB/s in the same rounds\n", table.to_string(),
             to_string(spread_of(p.subjects.back().rates()), 2, 1e-9));
}

nlohmann::ordered_json to_json(const flags& f, const plan& p, double bytes) {
  nlohmann::ordered_json generation = nlohmann::ordered_json::array();
  for (std::size_t n = 0; n < f.contexts.size(); ++n) {
    const subject& s = p.subjects[n + 1];
    generation.push_back({{"context", f.contexts[n]},
                          {"tokens_per_second", to_json(spread_of(s.rates()))},
                          {"weights_of_read", to_json(rate_ratio(s, p.subjects.back()), bytes)}});
  }
  return {{"threads", p.threads},
          {"prompt_tokens", f.prompt},
          {"prompt_tokens_per_second", to_json(spread_of(p.subjects.front().rates()))},
          {"generation", generation},
          {"read_bytes_per_second", to_json(spread_of(p.subjects.back().rates()))}};
}

result<void> measure(const flags& f, std::size_t threads, sinq::executor& pool, const huge_memory& memory,
                     nlohmann::ordered_json& found) {
  const std::size_t resident_before = resident_bytes();
  const double begin = seconds_now();
  auto opened = engine::model::open(f.model, {.threads = &pool, .precision = engine::parse_precision(f.precision)});
  if (!opened) return std::move(opened).error();
  const double seconds = seconds_now() - begin;
  const std::size_t longest = *std::max_element(f.contexts.begin(), f.contexts.end());
  runner r{*std::move(opened), std::max(longest + f.tokens, f.prompt)};
  r.read(0, 1, 1);
  const std::size_t resident = resident_bytes() - resident_before, file = file_bytes(f.model);
  const std::size_t bytes = weight_bytes(r.model.weights());
  fmt::print("{}: opened in {:.3f} s; {} in files, {} in memory after a token, which reads {} of weights\n", f.model,
             seconds, sinq_cli::bytes_text(file), sinq_cli::bytes_text(resident), sinq_cli::bytes_text(bytes));
  r.read(0, longest, longest);
  plan p = make_plan(f, r, threads, pool, memory);
  run_rounds(p.subjects, f.common.round());
  if (!r.outcome) return r.outcome;
  print(f, p, static_cast<double>(bytes));
  found = to_json(f, p, static_cast<double>(bytes));
  found["open_seconds"] = seconds;
  found["file_bytes"] = file;
  found["resident_bytes"] = resident;
  return {};
}

result<void> run_engine(const flags& f) {
  const machine on = this_machine();
  fmt::print("{}\n{} rounds, {} tokens written in each\n", on.to_string(), f.common.rounds, f.tokens);
  const huge_memory memory{f.common.bytes};
  std::memset(memory.span().data(), 1, memory.span().size());
  pools threads;
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const std::size_t count : f.common.threads)
    if (auto ok = measure(f, count, threads.of(count), memory, all.emplace_back()); !ok) return ok;
  return write_json(f.common.json, {{"machine", on.to_json()}, {"model", f.model}, {"found", all}});
}

action set_up(CLI::App& app) {
  const auto f = std::make_shared<flags>();
  add_common_flags(app, f->common);
  app.add_option("MODEL", f->model, "A model's directory, float or quantized")->required();
  app.add_option("--precision", f->precision, "As in sinq run")->check(CLI::IsMember({"auto", "exact", "int8"}));
  app.add_option("--prompt", f->prompt, "Tokens of the prompt")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--context", f->contexts, "Tokens before those that are written, each measured")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--tokens", f->tokens, "Tokens to write")->check(CLI::PositiveNumber)->capture_default_str();
  return [f] { return run_engine(*f); };
}

} // namespace

} // namespace sinq_bench

int main(int argc, char** argv) {
  return sinq_bench::run_program("sinq_bench_engine", "Measures how fast a language model reads and writes.", argc,
                                 argv, sinq_bench::set_up);
}
