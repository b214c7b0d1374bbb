#include "results.hpp"

#include "pareto.hpp"
#include "sinq_cli/text.hpp"

#include <sinq/core/config.hpp>

#include <fmt/format.h>

#include <algorithm>

namespace sinq_quality {

using nlohmann::ordered_json;
using sinq_cli::text_table;

namespace {

bool same_trial(const measurement& a, const measurement& b) {
  return a.bits == b.bits && a.group_size == b.group_size && a.what.label() == b.what.label();
}

/// A mean that counts only what is there.
class optional_mean {
public:
  void add(std::optional<double> value) {
    if (value) sum_ += *value, ++count_;
  }
  [[nodiscard]] std::optional<double> get() const {
    return count_ == 0 ? std::nullopt : std::optional{sum_ / static_cast<double>(count_)};
  }

private:
  double sum_ = 0;
  std::size_t count_ = 0;
};

mean_row mean_of(const measurement& like, const std::vector<const subject_report*>& set) {
  mean_row row{like, 0, false};
  optional_mean error, column, output, error_ratio, column_ratio, output_ratio, size;
  row.mean.seconds = row.mean.weights = 0;
  for (const subject_report* report : set)
    for (const measurement& m : report->measurements) {
      if (!same_trial(m, like)) continue;
      ++row.matrices;
      error.add(m.error);
      column.add(m.column_error);
      output.add(m.output_error);
      size.add(m.bits_per_weight);
      error_ratio.add(m.error_of_rtn);
      column_ratio.add(m.column_error_of_rtn);
      output_ratio.add(m.output_error_of_rtn);
      row.mean.seconds += m.seconds;
      row.mean.weights += m.weights;
    }
  row.mean.error = error.get().value_or(0);
  row.mean.column_error = column.get().value_or(0);
  row.mean.bits_per_weight = size.get().value_or(0);
  row.mean.output_error = output.get();
  row.mean.error_of_rtn = error_ratio.get();
  row.mean.column_error_of_rtn = column_ratio.get();
  row.mean.output_error_of_rtn = output_ratio.get();
  return row;
}

void mark_front(set_summary& summary) {
  std::vector<trade_off> choices;
  std::vector<mean_row*> rows;
  for (mean_row& row : summary.rows) {
    if (row.matrices != summary.matrices) continue;
    rows.push_back(&row);
    choices.push_back({row.mean.bits_per_weight, row.mean.error});
  }
  const std::vector<bool> front = pareto_front(choices);
  for (std::size_t n = 0; n < rows.size(); ++n) rows[n]->on_front = front[n];
}

void add(const spread& one, double count, spread& mean) {
  mean.kurtosis += one.kurtosis / count;
  mean.imbalance += one.imbalance / count;
}

void widen(const spread& one, spread& worst) {
  worst.kurtosis = std::max(worst.kurtosis, one.kurtosis);
  worst.imbalance = std::max(worst.imbalance, one.imbalance);
}

normalisation mean_normalisation(std::size_t n, const std::vector<const subject_report*>& set) {
  const auto count = static_cast<double>(set.size());
  normalisation mean;
  for (const subject_report* report : set) {
    const normalisation& one = report->normalisations[n];
    mean.group_size = one.group_size;
    add(one.matrix, count, mean.matrix);
    add(one.mean_before, count, mean.mean_before);
    add(one.mean_after, count, mean.mean_after);
    widen(one.worst_before, mean.worst_before);
    widen(one.worst_after, mean.worst_after);
  }
  return mean;
}

set_summary summarize_set(const std::string& name, const std::vector<const subject_report*>& set) {
  set_summary summary{name, set.size(), {}, {}};
  for (const subject_report* report : set)
    for (const measurement& m : report->measurements)
      if (std::none_of(summary.rows.begin(), summary.rows.end(),
                       [&](const mean_row& row) { return same_trial(row.mean, m); }))
        summary.rows.push_back(mean_of(m, set));
  std::stable_sort(summary.rows.begin(), summary.rows.end(), [](const mean_row& a, const mean_row& b) {
    return std::tuple{a.mean.bits, a.mean.group_size, a.mean.what.method} <
           std::tuple{b.mean.bits, b.mean.group_size, b.mean.what.method};
  });
  mark_front(summary);
  for (std::size_t n = 0; n < set.front()->normalisations.size(); ++n)
    summary.normalisations.push_back(mean_normalisation(n, set));
  return summary;
}

} // namespace

std::vector<set_summary> summarize(const std::vector<subject_report>& reports) {
  std::vector<set_summary> summaries;
  for (const subject_report& first : reports) {
    if (std::any_of(summaries.begin(), summaries.end(), [&](const auto& s) { return s.set == first.set; })) continue;
    std::vector<const subject_report*> set;
    for (const subject_report& report : reports)
      if (report.set == first.set) set.push_back(&report);
    summaries.push_back(summarize_set(first.set, set));
  }
  return summaries;
}

namespace {

std::string text(std::optional<double> value, const char* form) {
  return value ? fmt::format(fmt::runtime(form), *value) : "-";
}

std::vector<text_table::column> measured_columns() {
  using side = text_table::align;
  return {{"bits"},        {"group"},        {"method", side::left},
          {"error"},       {"of rtn"},       {"column error"},
          {"of rtn"},      {"output error"}, {"of rtn"},
          {"bits/weight"}, {"seconds"},      {"Gparam/s"},
          {"n"},           {"", side::left}};
}

std::vector<std::string> cells(const measurement& m, const std::string& matrices, const std::string& mark) {
  return {std::to_string(m.bits),
          std::to_string(m.group_size),
          m.what.label(),
          fmt::format("{:.5f}", m.error),
          text(m.error_of_rtn, "{:.3f}"),
          fmt::format("{:.5f}", m.column_error),
          text(m.column_error_of_rtn, "{:.3f}"),
          text(m.output_error, "{:.5f}"),
          text(m.output_error_of_rtn, "{:.3f}"),
          fmt::format("{:.3f}", m.bits_per_weight),
          fmt::format("{:.3f}", m.seconds),
          fmt::format("{:.3f}", m.weights / m.seconds * 1e-9),
          matrices,
          mark};
}

std::string normalisation_table(const std::vector<normalisation>& list) {
  text_table table{{{"group"},
                    {"matrix kurtosis"},
                    {"imbalance"},
                    {"tile kurtosis before"},
                    {"worst"},
                    {"after"},
                    {"worst"},
                    {"tile imbalance before"},
                    {"worst"},
                    {"after"},
                    {"worst"}}};
  for (const normalisation& n : list) {
    std::vector<std::string> row{std::to_string(n.group_size)};
    for (const double value : {n.matrix.kurtosis, n.matrix.imbalance, n.mean_before.kurtosis, n.worst_before.kurtosis,
                               n.mean_after.kurtosis, n.worst_after.kurtosis, n.mean_before.imbalance,
                               n.worst_before.imbalance, n.mean_after.imbalance, n.worst_after.imbalance})
      row.push_back(fmt::format("{:.4g}", value));
    table.add(std::move(row));
  }
  return table.to_string();
}

} // namespace

std::string table_of(const set_summary& summary) {
  text_table table{measured_columns()};
  for (const mean_row& row : summary.rows)
    table.add(cells(row.mean, std::to_string(row.matrices), row.on_front ? "*" : ""));
  return fmt::format("{}: mean of {} matrices\n{}\n{}", summary.set, summary.matrices, table.to_string(),
                     normalisation_table(summary.normalisations));
}

std::string table_of(const subject_report& report) {
  text_table table{measured_columns()};
  for (const measurement& m : report.measurements) table.add(cells(m, "", ""));
  return fmt::format("{} ({}), {} x {}\n{}\n{}", sinq_cli::one_line(report.name), report.set, report.rows, report.cols,
                     table.to_string(), normalisation_table(report.normalisations));
}

std::string legend() {
  return "error: |W - W'| / |W|; column error: the same with each column of W counted relative to its own size;\n"
         "output error: |X (W - W')^T| / |X W^T|, where inputs are known; of rtn: mean ratio to rtn at the same bits\n"
         "and group size; seconds: to quantize and pack, of all matrices together;\n"
         "Gparam/s: as many weights a second; n: matrices that it was run on;\n"
         "*: on the Pareto front of error and bits/weight, among those that were run on all matrices.\n"
         "sinq none, weights, inputs: the refinement; aux6: scales and zero points of 6 bits, t of 8 bits.\n"
         "kurtosis and imbalance: of whole matrices, and of their tiles (one group of columns) before and after\n"
         "Sinkhorn normalisation: the mean over tiles, and the worst of any tile.\n";
}

namespace {

ordered_json number(std::optional<double> value) {
  return value ? ordered_json(*value) : ordered_json(nullptr);
}

ordered_json row_of(const measurement& m) {
  return {{"bits", m.bits},
          {"group_size", m.group_size},
          {"method", to_string(m.what.method)},
          {"variant", m.what.variant},
          {"relative_error", m.error},
          {"relative_error_of_rtn", number(m.error_of_rtn)},
          {"column_normalized_error", m.column_error},
          {"column_normalized_error_of_rtn", number(m.column_error_of_rtn)},
          {"output_error", number(m.output_error)},
          {"output_error_of_rtn", number(m.output_error_of_rtn)},
          {"bits_per_weight", m.bits_per_weight},
          {"seconds", m.seconds}};
}

ordered_json row_of(const normalisation& n) {
  ordered_json row{{"kurtosis", n.matrix.kurtosis}, {"imbalance", n.matrix.imbalance}};
  const auto add_tiles = [&](const char* when, const spread& mean, const spread& worst) {
    row[fmt::format("tile_kurtosis_{}_mean", when)] = mean.kurtosis;
    row[fmt::format("tile_kurtosis_{}_worst", when)] = worst.kurtosis;
    row[fmt::format("tile_imbalance_{}_mean", when)] = mean.imbalance;
    row[fmt::format("tile_imbalance_{}_worst", when)] = worst.imbalance;
  };
  add_tiles("before", n.mean_before, n.worst_before);
  add_tiles("after", n.mean_after, n.worst_after);
  return row;
}

ordered_json normalisations_json(const std::vector<normalisation>& list) {
  ordered_json out = ordered_json::array();
  for (const normalisation& n : list) {
    ordered_json row{{"group_size", n.group_size}};
    row.update(row_of(n));
    out.push_back(std::move(row));
  }
  return out;
}

std::string csv_cell(const ordered_json& value) {
  if (value.is_null()) return "";
  if (!value.is_string()) return value.dump();
  std::string quoted{'"'};
  for (const char c : value.get<std::string>()) quoted += c == '"' ? std::string{"\"\""} : std::string{c};
  return quoted + '"';
}

} // namespace

std::string to_csv(const std::vector<subject_report>& reports) {
  std::string out;
  for (const subject_report& report : reports)
    for (const measurement& m : report.measurements) {
      ordered_json row{{"set", report.set}, {"matrix", report.name}, {"rows", report.rows}, {"cols", report.cols}};
      row.update(row_of(m));
      for (const normalisation& n : report.normalisations)
        if (n.group_size == m.group_size) row.update(row_of(n));
      const bool first = out.empty();
      std::string names, values;
      for (const auto& [name, value] : row.items()) {
        names += (names.empty() ? "" : ",") + name;
        values += (values.empty() ? "" : ",") + csv_cell(value);
      }
      out += (first ? names + "\n" : "") + values + "\n";
    }
  return out;
}

ordered_json to_json(const results& found, const std::vector<set_summary>& summaries) {
  ordered_json doc{{"command", "quality"}, {"sinq", SINQ_VERSION_STRING}, {"skipped", found.skipped}};
  doc["means"] = ordered_json::array();
  for (const set_summary& summary : summaries) {
    ordered_json rows = ordered_json::array();
    for (const mean_row& row : summary.rows) {
      ordered_json entry = row_of(row.mean);
      entry["matrices"] = row.matrices;
      entry["on_pareto_front"] = row.on_front;
      rows.push_back(std::move(entry));
    }
    doc["means"].push_back({{"set", summary.set},
                            {"matrices", summary.matrices},
                            {"measurements", std::move(rows)},
                            {"normalisation", normalisations_json(summary.normalisations)}});
  }
  doc["matrices"] = ordered_json::array();
  for (const subject_report& report : found.reports) {
    ordered_json rows = ordered_json::array();
    for (const measurement& m : report.measurements) rows.push_back(row_of(m));
    doc["matrices"].push_back({{"set", report.set},
                               {"name", report.name},
                               {"rows", report.rows},
                               {"cols", report.cols},
                               {"normalisation", normalisations_json(report.normalisations)},
                               {"measurements", std::move(rows)}});
  }
  return doc;
}

} // namespace sinq_quality
