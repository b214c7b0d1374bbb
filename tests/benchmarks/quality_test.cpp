#include "io/files.hpp"
#include "quality/pareto.hpp"
#include "support/catch.hpp"

#include <sinq/quant/quantize.hpp>

#include <nlohmann/json.hpp>

#include <cstdlib>
#include <map>

using namespace sinq_test;

namespace {

/// Runs sinq_quality on tiny matrices that it makes, and says how it ended.
int run_quality(const std::string& options, const fs::path& log, const std::string& before = "") {
  const std::string command = before + "'" SINQ_QUALITY "' --only 'gaussian|outliers' --synthetic-shape 24 80 " +
                              options + " >'" + log.string() + "' 2>&1";
  const int status = std::system(command.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/// How many rows each method has among those of one width.
std::map<std::string, int> methods_of(const nlohmann::json& measurements, int bits) {
  std::map<std::string, int> found;
  for (const auto& row : measurements)
    if (row["bits"] == bits) ++found[row["method"]];
  return found;
}

/// One row for every method that has the width and needs no levels; four variants of sinq.
std::map<std::string, int> expected_methods(int bits) {
  std::map<std::string, int> expected;
  for (const sinq::method_info& entry : sinq::method_table)
    if (!entry.needs_levels && (entry.bits == 0 || entry.bits == bits))
      expected[std::string{entry.name}] = entry.id == sinq::method::sinq ? 4 : 1;
  return expected;
}

void check_row(const nlohmann::json& row) {
  INFO(row.dump());
  for (const char* field : {"relative_error", "column_normalized_error", "output_error", "bits_per_weight", "seconds",
                            "relative_error_of_rtn", "column_normalized_error_of_rtn", "output_error_of_rtn"}) {
    REQUIRE(row[field].is_number()); // JSON has no NaN or infinity: they would be null
    CHECK(row[field] > 0);
  }
  if (row["method"] == "rtn")
    for (const char* field : {"relative_error_of_rtn", "column_normalized_error_of_rtn", "output_error_of_rtn"})
      CHECK(row[field] == 1.0);
}

std::vector<bool> front_of(const std::vector<sinq_quality::trade_off>& choices) {
  return sinq_quality::pareto_front(choices);
}

} // namespace

TEST_CASE("quality_smoke") {
  const scratch dir;
  const auto path = [&](const char* name) { return (dir / name).string(); };
  const std::string widths = "--bits 3 --bits 4 --group-size 32 ";
  const int status = run_quality(widths + "--csv '" + path("a.csv") + "' --json '" + path("a.json") + "'", dir / "log");
  INFO(read_file(dir / "log"));
  REQUIRE(status == 0);
  const auto doc = nlohmann::json::parse(read_file(dir / "a.json"));
  REQUIRE(doc["matrices"].size() == 2);
  std::size_t rows = 0;
  for (const auto& matrix : doc["matrices"]) {
    for (const int bits : {3, 4}) CHECK(methods_of(matrix["measurements"], bits) == expected_methods(bits));
    for (const auto& row : matrix["measurements"]) check_row(row);
    rows += matrix["measurements"].size();
    const auto& balance = matrix["normalisation"].at(0);
    CHECK(balance["tile_imbalance_after_mean"] < balance["tile_imbalance_before_mean"]);
  }
  const std::string csv = read_file(dir / "a.csv");
  CHECK(static_cast<std::size_t>(std::count(csv.begin(), csv.end(), '\n')) == rows + 1);
  const auto fields = std::count(csv.begin(), std::find(csv.begin(), csv.end(), '\n'), ',');
  CHECK(static_cast<std::size_t>(std::count(csv.begin(), csv.end(), ',')) ==
        static_cast<std::size_t>(fields) * (rows + 1));
}

TEST_CASE("quality finds the same errors with every number of threads") {
  const scratch dir;
  std::vector<nlohmann::json> errors;
  for (const char* threads : {"1", "3"}) {
    const std::string file = (dir / threads).string();
    REQUIRE(run_quality("--bits 3 --group-size 64 --method sinq --threads " + std::string{threads} + " --json '" +
                            file + "'",
                        dir / "log") == 0);
    auto doc = nlohmann::json::parse(read_file(file));
    for (auto& matrix : doc["matrices"])
      for (auto& row : matrix["measurements"]) row.erase("seconds");
    errors.push_back(doc["matrices"]);
  }
  CHECK(errors[0] == errors[1]);
}

TEST_CASE("quality says before the work what it cannot write") {
  const scratch dir;
  CHECK(run_quality("--csv '" + (dir / "absent/a.csv").string() + "'", dir / "log") == 1);
  CHECK(read_file(dir / "log").starts_with("sinq_quality: error: "));
  CHECK(run_quality("--plot '" + (dir / "a.svg").string() + "'", dir / "log", "PATH=/absent ") == 1);
  CHECK(read_file(dir / "log").find("gnuplot") != std::string::npos);
  CHECK_FALSE(fs::exists(dir / "a.svg"));
}

TEST_CASE("the Pareto front leaves out what another choice beats") {
  CHECK(front_of({}).empty());
  CHECK(front_of({{4, 0.1}}) == std::vector{true});
  // (4.5, 0.12) is planted: larger and farther than (4, 0.1)
  CHECK(front_of({{3, 0.2}, {4, 0.1}, {4.5, 0.12}, {5, 0.05}}) == std::vector{true, true, false, true});
  CHECK(front_of({{4, 0.1}, {4, 0.11}, {4.1, 0.1}}) == std::vector{true, false, false}); // beaten in one of the two
  CHECK(front_of({{4, 0.1}, {4, 0.1}}) == std::vector{true, true});                      // alike: neither beats
}
