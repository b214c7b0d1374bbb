/// sinq_bench_quantize: weights quantized, packed and restored a second, and how that grows with the matrix.

#include "steps.hpp"

#include "measure/limits.hpp"
#include "measure/machine.hpp"
#include "measure/program.hpp"

#include "sinq_cli/text.hpp"

#include <fmt/format.h>

#include <cstring>
#include <deque>
#include <map>

namespace sinq_bench {

namespace {

using nlohmann::ordered_json;
using sinq::result;
using sinq_cli::text_table;

struct flags {
  common_flags common;
  std::vector<std::string> methods{"rtn", "nf4", "sinq", "sinq_nf4", "hqq", "sinq+weights"};
  std::string type = "f32";
  std::size_t rows = 4096, cols = 4096, group_size = 64;
  int bits = 4;
  bool device = false, scaling = false;
  std::size_t most_weights = std::size_t{1} << 28;
};

/// What was measured of one trial on one number of threads.
struct row {
  std::size_t rows, cols, threads;
  std::string method;
  double error;                                   ///< relative, of the packed matrix
  std::vector<std::pair<step, spread>> rates{};   ///< weights a second
  std::vector<std::pair<step, spread>> of_read{}; ///< bytes of the source a second, of those that are read at most
};

struct report {
  std::vector<row> rows;
  std::map<std::size_t, spread> read; ///< bytes a second, by threads; of the last shape
};

/// Where a trial's steps are among the subjects.
struct place {
  std::size_t trial, threads, first, read;
};

/// Everything that is timed on matrices of one shape, in the same rounds as reading.
class shape_run {
public:
  shape_run(const flags& f, const std::vector<quantize_trial>& trials, const std::vector<step>& steps, pools& threads,
            std::size_t rows, std::size_t cols)
      : f_{f}, trials_{trials}, steps_{steps}, threads_{threads}, rows_{rows}, cols_{cols},
        from_{rows, cols, f.type == "bf16" ? sinq::dtype::bf16 : sinq::dtype::f32, f.common.bytes},
        out_{rows * cols * sizeof(float)}, memory_{f.common.bytes} {
    std::memset(memory_.span().data(), 1, memory_.span().size());
    std::memset(out_.span().data(), 1, out_.span().size());
  }

  result<void> operator()(report& to) {
    for (const quantize_trial& trial : trials_) {
      auto prepared = prepare(trial, from_);
      if (!prepared) return std::move(prepared).error();
      inputs_.push_back(*std::move(prepared));
    }
    for (const std::size_t count : f_.common.threads) add_subjects(count);
    run_rounds(subjects_, f_.common.round());
    for (const place& at : places_) {
      to.rows.push_back(evaluate(at));
      to.read[at.threads] = spread_of(subjects_[at.read].rates());
    }
    return {};
  }

private:
  void add_subjects(std::size_t count) {
    sinq::executor& pool = threads_.of(count);
    const std::size_t reader = subjects_.size();
    subjects_.push_back({.call = [this, &pool] { read(memory_.span(), most_streams, pool); },
                         .work = static_cast<double>(memory_.span().size())});
    for (std::size_t n = 0; n < trials_.size(); ++n) {
      places_.push_back({n, count, subjects_.size(), reader});
      for (const step s : steps_) subjects_.push_back(timed_step(s, trials_[n], from_, inputs_[n], out_, pool));
    }
  }

  [[nodiscard]] row evaluate(const place& at) const {
    row r{rows_, cols_, at.threads, trials_[at.trial].name, inputs_[at.trial].error};
    for (std::size_t n = 0; n < steps_.size(); ++n) {
      subject timed = subjects_[at.first + n];
      r.rates.emplace_back(steps_[n], spread_of(timed.rates()));
      if (steps_[n] != step::quantize && steps_[n] != step::both) continue;
      timed.work = static_cast<double>(from_.matrix_bytes());
      r.of_read.emplace_back(steps_[n], rate_ratio(timed, subjects_[at.read]));
    }
    return r;
  }

  const flags& f_;
  const std::vector<quantize_trial>& trials_;
  const std::vector<step>& steps_;
  pools& threads_;
  std::size_t rows_, cols_;
  source_weights from_;
  huge_memory out_, memory_;
  std::deque<trial_inputs> inputs_;
  std::vector<subject> subjects_;
  std::vector<place> places_;
};

/// Shapes of 2^20 weights and more, each twice the last, square or twice as high as wide.
std::vector<std::pair<std::size_t, std::size_t>> scaling_shapes(std::size_t most_weights) {
  std::vector<std::pair<std::size_t, std::size_t>> shapes;
  for (std::size_t rows = 1024, cols = 1024; rows * cols <= most_weights; (rows == cols ? rows : cols) *= 2)
    shapes.emplace_back(rows, cols);
  return shapes;
}

std::string name_of(step s) {
  return std::string{step_names[static_cast<std::size_t>(s)]};
}

std::string to_string(const report& found, const std::vector<step>& steps) {
  std::vector<text_table::column> columns{
      {"shape", text_table::align::left}, {"method", text_table::align::left}, {"threads"}, {"error"}};
  for (const step s : steps) {
    columns.push_back({name_of(s) + ", Gparam/s"});
    if (s == step::quantize || s == step::both) columns.push_back({"of read"});
  }
  text_table table{std::move(columns)};
  for (const row& r : found.rows) {
    std::vector<std::string> cells{fmt::format("{} x {}", r.rows, r.cols), r.method, fmt::to_string(r.threads),
                                   fmt::format("{:.4f}", r.error)};
    for (const auto& [s, rate] : r.rates) {
      cells.push_back(sinq_bench::to_string(rate, 3, 1e-9));
      for (const auto& [which, ratio] : r.of_read)
        if (which == s) cells.push_back(fmt::format("{:.3f}", ratio.median));
    }
    table.add(std::move(cells));
  }
  std::string text = table.to_string() + "\n";
  for (const auto& [count, rate] : found.read)
    text += fmt::format("{} threads read {} GB/s in the same rounds\n", count, sinq_bench::to_string(rate, 2, 1e-9));
  return text + "of read: bytes of the source a second, of those that are read at most; error: |W - W'| / |W|\n";
}

ordered_json to_json(const report& found, const machine& on, const flags& f) {
  ordered_json doc{{"machine", on.to_json()}, {"bits", f.bits}, {"group_size", f.group_size}, {"dtype", f.type}};
  for (const auto& [count, rate] : found.read)
    doc["read_bytes_per_second"].push_back({{"threads", count}, {"rate", sinq_bench::to_json(rate)}});
  for (const row& r : found.rows) {
    ordered_json line{
        {"rows", r.rows}, {"cols", r.cols}, {"method", r.method}, {"threads", r.threads}, {"error", r.error}};
    for (const auto& [s, rate] : r.rates) line["weights_per_second"][name_of(s)] = sinq_bench::to_json(rate);
    for (const auto& [s, ratio] : r.of_read) line["of_read"][name_of(s)] = sinq_bench::to_json(ratio);
    doc["measurements"].push_back(std::move(line));
  }
  return doc;
}

result<void> run_quantize(const flags& f) {
  std::vector<quantize_trial> trials;
  for (const std::string& name : f.methods) {
    auto trial = make_trial(name, f.bits, f.group_size);
    if (!trial) return std::move(trial).error();
    trials.push_back(*std::move(trial));
  }
  const machine on = this_machine();
  fmt::print("{}\n{} bits, groups of {}, from {}, {} rounds\n\n", on.to_string(), f.bits, f.group_size, f.type,
             f.common.rounds);
  std::vector<step> steps{step::quantize, step::pack, step::both, step::dequantize, step::to_panels};
  if (f.device) steps.push_back(step::to_device_layout);
  std::vector<std::pair<std::size_t, std::size_t>> shapes{{f.rows, f.cols}};
  if (f.scaling) {
    steps = {step::both};
    shapes = scaling_shapes(f.most_weights);
  }
  pools threads;
  report found;
  for (const auto& [rows, cols] : shapes)
    if (auto done = shape_run{f, trials, steps, threads, rows, cols}(found); !done) return done;
  fmt::print("{}", to_string(found, steps));
  return write_json(f.common.json, to_json(found, on, f));
}

void add_flags(CLI::App& app, flags& f) {
  app.add_option("--methods", f.methods, "Methods as their papers have them; NAME+weights: refined")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--dtype", f.type, "Of the weights: f32, bf16")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  app.add_option("--rows", f.rows, "Rows of a matrix")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--cols", f.cols, "Columns of a matrix")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--bits", f.bits, "Bits of a code")->check(CLI::IsMember({2, 3, 4, 5, 6, 8}))->capture_default_str();
  app.add_option("--group-size", f.group_size, "Columns that share a scale")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--device", f.device, "Times to_device_layout too, which comes before an upload to a GPU");
  app.add_flag("--scaling", f.scaling, "Quantizes and packs matrices of 2^20 weights, twice as many, and so on");
  app.add_option("--most-weights", f.most_weights, "Where --scaling ends")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_common_flags(app, f.common);
}

action set_up(CLI::App& app) {
  const auto f = std::make_shared<flags>();
  add_flags(app, *f);
  return [f] { return run_quantize(*f); };
}

} // namespace

} // namespace sinq_bench

int main(int argc, char** argv) {
  return sinq_bench::run_program("sinq_bench_quantize",
                                 "Times quantizing, packing and restoring weights against reading them.", argc, argv,
                                 sinq_bench::set_up);
}
