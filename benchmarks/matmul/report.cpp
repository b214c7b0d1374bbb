#include "report.hpp"

#include "sinq_cli/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace sinq_bench {

namespace {

using sinq_cli::text_table;

/// Limits among the subjects: where they are.
struct limit_places {
  std::size_t read;
  std::map<const peak*, std::size_t> peaks;
};

limit_places add_limits(const huge_memory& memory, sinq::executor& pool, double turn_seconds,
                        std::vector<subject>& to) {
  const std::span<const sinq::byte> bytes = memory.span();
  limit_places places{to.size(), {}};
  to.push_back(
      {.call = [bytes, &pool] { read(bytes, most_streams, pool); }, .work = static_cast<double>(bytes.size())});
  for (const arithmetic kind : {arithmetic::f32, arithmetic::int8, arithmetic::bf16})
    if (const peak* const p = fastest(kind)) {
      const std::size_t steps = steps_of(*p, turn_seconds);
      places.peaks[p] = to.size();
      to.push_back({.call = [p, steps, &pool] { run(*p, steps, pool); },
                    .work = p->products * static_cast<double>(steps * pool.concurrency())});
    }
  return places;
}

subject timed(const product& p, double weights) {
  return {.call = [p] { p.by->multiply(p.tokens, p.threads); }, .work = weights * static_cast<double>(p.tokens)};
}

/// The same with another count of its work.
subject with_work(subject s, double work) {
  s.work = work;
  return s;
}

measured evaluate(const product& p, const subject& s, const subject& read, const subject* peak,
                  const subject* one_token) {
  measured m{.what = p, .seconds = spread_of(s.seconds)};
  m.bytes_rate = p.by->weight_bytes / m.seconds.median;
  m.products_rate = s.work / m.seconds.median;
  m.of_read = rate_ratio(with_work(s, p.by->weight_bytes), read);
  if (peak != nullptr) m.of_peak = rate_ratio(s, *peak);
  if (one_token != nullptr) m.of_one_token = time_ratio(s, *one_token);
  return m;
}

std::string optional_text(const std::optional<spread>& s) {
  return s ? fmt::format("{:.3f}", s->median) : "-";
}

} // namespace

report measure(const std::vector<product>& products, const common_flags& f, pools& threads, double weights) {
  const huge_memory memory{f.bytes};
  std::memset(memory.span().data(), 1, memory.span().size());
  std::vector<subject> subjects;
  subjects.reserve(products.size());
  for (const product& p : products) subjects.push_back(timed(p, weights));
  std::map<std::size_t, limit_places> places;
  for (const product& p : products)
    if (!places.contains(p.threads))
      places[p.threads] = add_limits(memory, threads.of(p.threads), f.turn_ms / 1e3, subjects);
  run_rounds(subjects, f.round());

  report found;
  for (const auto& [count, at] : places) {
    measured_limits& limits = found.limits[count];
    limits.read = spread_of(subjects[at.read].rates());
    for (const auto& [p, place] : at.peaks) limits.peaks[p] = spread_of(subjects[place].rates());
  }
  for (std::size_t n = 0; n < products.size(); ++n) {
    const product& p = products[n];
    const limit_places& at = places.at(p.threads);
    const auto peak = at.peaks.find(fastest(p.tokens < p.by->fewest_bf16_tokens ? p.by->kind : arithmetic::bf16));
    const auto one = std::find_if(products.begin(), products.end(), [&](const product& other) {
      return other.by == p.by && other.threads == p.threads && other.tokens == 1;
    });
    found.rows.push_back(evaluate(p, subjects[n], subjects[at.read],
                                  peak == at.peaks.end() ? nullptr : &subjects[peak->second],
                                  one == products.end() ? nullptr : &subjects[std::size_t(one - products.begin())]));
  }
  return found;
}

std::string report::to_string() const {
  text_table table{{{"kernel", text_table::align::left},
                    {"weights", text_table::align::left},
                    {"threads"},
                    {"tokens"},
                    {"us"},
                    {"least..most"},
                    {"GB/s"},
                    {"of read"},
                    {"Gproducts/s"},
                    {"of peak"},
                    {"of 1 token"},
                    {"error"}}};
  const measured* last = nullptr;
  for (const measured& m : rows) {
    if (last != nullptr && (last->what.by != m.what.by || last->what.threads != m.what.threads)) table.add_rule();
    last = &m;
    table.add({m.what.by->name, m.what.by->weights, fmt::to_string(m.what.threads), fmt::to_string(m.what.tokens),
               fmt::format("{:.1f}", m.seconds.median * 1e6),
               fmt::format("{:.1f}..{:.1f}", m.seconds.least * 1e6, m.seconds.most * 1e6),
               fmt::format("{:.2f}", m.bytes_rate / 1e9), fmt::format("{:.3f}", m.of_read.median),
               fmt::format("{:.1f}", m.products_rate / 1e9), optional_text(m.of_peak), optional_text(m.of_one_token),
               fmt::format("{:.1e}", m.what.error)});
  }
  std::string text = table.to_string() + "\nlimits in the same rounds:\n";
  for (const auto& [count, at] : limits) {
    text += fmt::format("  {} threads: read {} GB/s", count, sinq_bench::to_string(at.read, 2, 1e-9));
    for (const auto& [p, rate] : at.peaks)
      text += fmt::format("; {} {} Gproducts/s", p->name, sinq_bench::to_string(rate, 1, 1e-9));
    text += "\n";
  }
  return text + "error: |y - x W^T| / |x W^T| of 64 rows in double; of peak: of the fastest instructions for the "
                "kernel's arithmetic\n";
}

nlohmann::ordered_json report::to_json(const machine& on, std::size_t w_rows, std::size_t w_cols) const {
  using nlohmann::ordered_json;
  ordered_json doc{{"machine", on.to_json()}, {"rows", w_rows}, {"cols", w_cols}};
  for (const auto& [count, at] : limits) {
    ordered_json& line = doc["limits"].emplace_back(ordered_json{{"threads", count}});
    line["read_bytes_per_second"] = sinq_bench::to_json(at.read);
    for (const auto& [p, rate] : at.peaks)
      line["products_per_second"][std::string{p->name}] = sinq_bench::to_json(rate);
  }
  for (const measured& m : rows) {
    ordered_json& row = doc["products"].emplace_back();
    row = {{"kernel", m.what.by->name},
           {"weights", m.what.by->weights},
           {"weight_bytes", m.what.by->weight_bytes},
           {"threads", m.what.threads},
           {"tokens", m.what.tokens},
           {"seconds", sinq_bench::to_json(m.seconds)},
           {"of_read", sinq_bench::to_json(m.of_read)},
           {"error", m.what.error}};
    if (m.of_peak) row["of_peak"] = sinq_bench::to_json(*m.of_peak);
    if (m.of_one_token) row["of_one_token"] = sinq_bench::to_json(*m.of_one_token);
  }
  return doc;
}

} // namespace sinq_bench
