#pragma once

#include "trials.hpp"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace sinq_quality {

/// The mean of one trial over the matrices of a set.
struct mean_row {
  measurement mean;         ///< ratios are means of ratios; seconds are of all matrices together
  std::size_t matrices = 0; ///< on which it was measured
  bool on_front = false;    ///< no other of the set, measured on all its matrices, is smaller and nearer
};

/// The means over a set of matrices.
struct set_summary {
  std::string set;
  std::size_t matrices = 0;
  std::vector<mean_row> rows;                ///< by bits, group size, trial
  std::vector<normalisation> normalisations; ///< means of means, worst of worst; by group size
};

/// Everything that was found.
struct results {
  std::vector<subject_report> reports;
  std::vector<std::string> skipped; ///< a line each
};

/// Means over each set, in the order of the reports.
[[nodiscard]] std::vector<set_summary> summarize(const std::vector<subject_report>& reports);

/// Tables for people.
[[nodiscard]] std::string table_of(const set_summary& summary);
[[nodiscard]] std::string table_of(const subject_report& report);
/// What the columns mean.
[[nodiscard]] std::string legend();

/// One line for each measurement, the first names the columns.
[[nodiscard]] std::string to_csv(const std::vector<subject_report>& reports);
/// The same with the means, the lines about what was skipped, and how it was run.
[[nodiscard]] nlohmann::ordered_json to_json(const results& found, const std::vector<set_summary>& summaries);

} // namespace sinq_quality
