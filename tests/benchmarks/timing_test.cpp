/// The programs that time, on matrices so small that the times mean nothing: what they print and write is looked at.

#include "io/files.hpp"
#include "support/catch.hpp"

#include <nlohmann/json.hpp>

#include <cstdlib>
#include <map>
#include <string>
#include <tuple>

#include <sys/wait.h>

using namespace sinq_test;

namespace {

struct bench_run {
  int status;
  std::string text;
  nlohmann::json document; ///< null where none was written
};

bench_run run_bench(const std::string& program, const std::string& options) {
  const scratch dir;
  const fs::path log = dir / "log", json = dir / "found.json";
  const std::string command = "'" + program + "' --rounds 2 --turn-ms 1 --bytes 300000 --threads 1,2 --json '" +
                              json.string() + "' " + options + " >'" + log.string() + "' 2>&1";
  const int status = std::system(command.c_str());
  bench_run run{WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(log), nullptr};
  if (fs::exists(json)) run.document = nlohmann::json::parse(read_file(json));
  return run;
}

bench_run run_well(const std::string& program, const std::string& options) {
  bench_run run = run_bench(program, options);
  INFO(run.text);
  REQUIRE(run.status == 0);
  const auto& machine = run.document["machine"];
  for (const char* field : {"date", "processor", "instructions", "compiler", "huge_pages"}) {
    CHECK(!machine[field].get<std::string>().empty());
    CHECK(run.text.find(machine[field].get<std::string>()) != std::string::npos);
  }
  CHECK(machine["hardware_threads"] > 0);
  return run;
}

/// A spread whose numbers are there, positive and in order.
void check_spread(const nlohmann::json& s) {
  INFO(s.dump());
  REQUIRE((s["least"].is_number() && s["median"].is_number() && s["most"].is_number()));
  CHECK(s["least"] > 0);
  CHECK(s["least"] <= s["median"]);
  CHECK(s["median"] <= s["most"]);
}

} // namespace

TEST_CASE("bench_limits_smoke") {
  const bench_run run = run_well(SINQ_BENCH_LIMITS, "");
  REQUIRE(run.document["limits"].size() >= 8); // four ways to read, on one thread and on two
  std::size_t reads = 0;
  for (const auto& line : run.document["limits"]) {
    check_spread(line["rate"]);
    CHECK((line["threads"] == 1 || line["threads"] == 2));
    reads += line["unit"] == "GB/s" ? 1 : 0;
  }
  CHECK(reads == 8);
}

TEST_CASE("bench_matmul_smoke") {
  const bench_run run = run_well(SINQ_BENCH_MATMUL, "--rows 72 --cols 320 --tokens 1,3 --bits 4,3 --grid uniform,nf4 "
                                                    "--aux f16,4.25 --peers");
  std::map<std::string, int> kernels;
  for (const auto& row : run.document["products"]) {
    INFO(row.dump());
    ++kernels[row["kernel"].get<std::string>().substr(0, 8)];
    check_spread(row["seconds"]);
    check_spread(row["of_read"]);
    check_spread(row["of_one_token"]);
    if (row["tokens"] == 1) CHECK(row["of_one_token"]["median"] == 1);
    CHECK(row["weight_bytes"] > 72 * 320 * 3 / 8);
    CHECK(row["error"] > 0);
    CHECK(row["error"] < 0.05);
  }
  // 3 and 4 bits and NF4, and the preset with both grids; on two numbers of tokens and of threads
  CHECK(kernels["sinq exa"] == 5 * 2 * 2);
  CHECK(kernels["sinq int"] == 5 * 2 * 2);
  CHECK(kernels["Eigen (S"] + kernels["Eigen (A"] + kernels["Eigen (N"] == 2 * 2);
  for (const auto& [peer, key, rows] : {std::tuple{"OpenBLAS", "OpenBLAS", 4}, {"oneDNN", "oneDNN", 12}}) {
    CAPTURE(peer);
    if (run.text.find("without " + std::string{peer}) == std::string::npos) CHECK(kernels[key] == rows);
  }
  REQUIRE(run.document["limits"].size() == 2);
  for (const auto& line : run.document["limits"]) check_spread(line["read_bytes_per_second"]);
}

TEST_CASE("bench_quantize_smoke") {
  const bench_run run = run_well(SINQ_BENCH_QUANTIZE, "--rows 40 --cols 192 --dtype bf16");
  REQUIRE(run.document["measurements"].size() == 6 * 2);
  for (const auto& row : run.document["measurements"]) {
    INFO(row.dump());
    for (const char* step : {"quantize", "pack", "both", "dequantize", "to_panels"})
      check_spread(row["weights_per_second"][step]);
    check_spread(row["of_read"]["quantize"]);
    check_spread(row["of_read"]["both"]);
    CHECK(row["error"] > 0.01);
    CHECK(row["error"] < 0.5);
  }
}

TEST_CASE("bench_quantize doubles its matrices") {
  const bench_run run = run_well(SINQ_BENCH_QUANTIZE, "--scaling --most-weights 2097152 --methods rtn");
  const auto& rows = run.document["measurements"];
  REQUIRE(rows.size() == 2 * 2);
  CHECK(rows.front()["rows"] == 1024);
  CHECK(rows.back()["rows"] == 2048);
  CHECK(rows.back()["cols"] == 1024);
}

TEST_CASE("bench_engine_smoke") {
  const bench_run run =
      run_well(SINQ_BENCH_ENGINE, "'" SINQ_TEST_DATA_DIR "/engine/llama' --prompt 7 --context 1,5 --tokens 2");
  REQUIRE(run.document["found"].size() == 2);
  for (const auto& found : run.document["found"]) {
    check_spread(found["prompt_tokens_per_second"]);
    check_spread(found["read_bytes_per_second"]);
    REQUIRE(found["generation"].size() == 2);
    for (const auto& line : found["generation"]) {
      check_spread(line["tokens_per_second"]);
      check_spread(line["weights_of_read"]);
    }
    CHECK(found["file_bytes"] > 0);
    CHECK(found["open_seconds"] > 0);
  }
}

TEST_CASE("the programs that time say what they cannot do") {
  const bench_run method = run_bench(SINQ_BENCH_QUANTIZE, "--methods absent");
  CHECK(method.status == 1);
  CHECK(method.text == "sinq_bench_quantize: error: no method is called absent\n");
  const bench_run weights = run_bench(SINQ_BENCH_MATMUL, "--bits 3 --grid nf4 --peers");
  CHECK(weights.status == 1);
  CHECK(weights.text == "sinq_bench_matmul: error: no weights are left: NF4 has 4 bits\n");
  CHECK(run_bench(SINQ_BENCH_MATMUL, "--aux 17").status != 0);
  CHECK(run_bench(SINQ_BENCH_LIMITS, "--threads 0").status != 0);
  CHECK(run_bench(SINQ_BENCH_ENGINE, "'" SINQ_TEST_DATA_DIR "/engine'").status == 1);
}
