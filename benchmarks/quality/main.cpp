/// sinq_quality: every method on real and synthetic matrices, and what each leaves of them.

#include "plot.hpp"
#include "results.hpp"

#include "sinq_cli/calibration.hpp"
#include "sinq_cli/progress.hpp"
#include "sinq_cli/signals.hpp"
#include "sinq_cli/text.hpp"

#include <sinq/io/output_file.hpp>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>

namespace sinq_quality {

namespace {

namespace fs = std::filesystem;
using sinq::errc;
using sinq::make_error;
using sinq::result;

struct flags {
  real_choice real;
  std::vector<std::size_t> synthetic_shape{256, 512};
  std::uint64_t seed = 1;
  trial_options widths{{2, 3, 4}, {32, 64, 128}, {}};
  std::vector<std::string> methods;
  std::size_t threads = 1;
  std::string csv, json, plot;
  bool verbose = false;
};

/// The real matrices that the project keeps for itself, if this is its workplace.
std::vector<std::string> default_paths() {
  std::vector<std::string> paths;
#ifdef SINQ_QUALITY_WEIGHTS
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator{SINQ_QUALITY_WEIGHTS, ignored})
    if (entry.path().extension() == ".safetensors") paths.push_back(entry.path().string());
  std::sort(paths.begin(), paths.end());
#endif
  return paths;
}

result<std::vector<subject>> choose_subjects(const flags& f) {
  real_choice real = f.real;
  if (real.paths.empty()) real.paths = default_paths();
  auto subjects = real_matrices(real);
  if (!subjects) return subjects;
  auto synthetic = synthetic_matrices(f.synthetic_shape[0], f.synthetic_shape[1], f.seed, f.real.only);
  if (!synthetic) return synthetic;
  std::move(synthetic->begin(), synthetic->end(), std::back_inserter(*subjects));
  if (subjects->empty()) return make_error(errc::invalid_argument, "no matrix is left: see --only");
  return subjects;
}

/// A file that appears whole at the end, or not at all; begun first, so that one that cannot be written is known.
class late_file {
public:
  static result<late_file> create(const std::string& path) {
    late_file made;
    if (path.empty()) return made;
    auto file = sinq::io::output_file::create(path);
    if (!file) return std::move(file).error();
    made.file_.emplace(*std::move(file));
    return made;
  }
  [[nodiscard]] bool wanted() const { return file_.has_value(); }
  result<void> finish(const std::string& text) {
    if (!file_) return {};
    if (auto done = file_->write(std::as_bytes(std::span{text})); !done) return done;
    return file_->commit();
  }

private:
  std::optional<sinq::io::output_file> file_;
};

/// Says which methods some matrices are not quantized with for want of inputs.
void note_unfed(const std::vector<trial>& trials, const std::vector<subject_report>& reports, results& found) {
  std::string labels;
  for (const trial& t : trials)
    if (t.needs_inputs) labels += (labels.empty() ? "" : ", ") + t.label();
  std::size_t unfed = 0;
  for (const subject_report& report : reports)
    unfed += std::none_of(report.measurements.begin(), report.measurements.end(),
                          [](const measurement& m) { return m.output_error.has_value(); })
                 ? 1
                 : 0;
  if (unfed != 0 && !labels.empty())
    found.skipped.push_back(fmt::format("{} on {} matrices without input moments (see --moments)", labels, unfed));
  for (const sinq::method_info& entry : sinq::method_table)
    if (entry.needs_levels) found.skipped.push_back(fmt::format("{}, which needs levels", entry.name));
}

result<results> measure_all(const flags& f, const std::vector<subject>& subjects, const std::vector<trial>& trials) {
  sinq::thread_pool threads{f.threads};
  trial_options options = f.widths;
  double total = 0;
  for (const subject& s : subjects) total += static_cast<double>(s.rows * s.cols);
  sinq_cli::progress_bar progress{total, false};
  results found;
  for (const subject& s : subjects) {
    const std::size_t elements = s.rows * s.cols;
    progress.begin(s.name, elements * sizeof(float), static_cast<double>(elements));
    options.run = {.threads = &threads, .progress = [](double) { return sinq_cli::goes_on(); }};
    auto report = try_all(s, trials, options, found.skipped);
    if (!report) return std::move(report).error();
    found.reports.push_back(*std::move(report));
  }
  note_unfed(trials, found.reports, found);
  return found;
}

void print(const results& found, const std::vector<set_summary>& summaries, bool verbose) {
  if (verbose)
    for (const subject_report& report : found.reports) fmt::print("{}\n", table_of(report));
  for (const set_summary& summary : summaries) fmt::print("{}\n", table_of(summary));
  fmt::print("{}", legend());
  for (const std::string& line : found.skipped) fmt::print("left out: {}\n", sinq_cli::one_line(line));
}

result<void> run(const flags& f) {
  if (!f.plot.empty())
    if (auto there = check_gnuplot(); !there) return there;
  auto csv = late_file::create(f.csv);
  if (!csv) return std::move(csv).error();
  auto json = late_file::create(f.json);
  if (!json) return std::move(json).error();
  auto plot = late_file::create(f.plot);
  if (!plot) return std::move(plot).error();
  const auto subjects = choose_subjects(f);
  if (!subjects) return subjects.error();
  const auto found = measure_all(f, *subjects, choose_trials(f.methods));
  if (!found) return found.error();
  const std::vector<set_summary> summaries = summarize(found->reports);
  if (auto done = csv->finish(to_csv(found->reports)); !done) return done;
  const auto replace = nlohmann::ordered_json::error_handler_t::replace;
  if (auto done = json->finish(to_json(*found, summaries).dump(2, ' ', false, replace) + "\n"); !done) return done;
  if (plot->wanted()) {
    const auto svg = draw_svg(summaries);
    if (!svg) return svg.error();
    if (auto done = plot->finish(*svg); !done) return done;
  }
  print(*found, summaries, f.verbose);
  return {};
}

void add_flags(CLI::App& app, flags& f) {
  std::vector<std::string> names;
  for (const sinq::method_info& entry : sinq::method_table) names.emplace_back(entry.name);
  app.add_option("PATH", f.real.paths, "Safetensors files and model directories; without any, the project's own");
  app.add_option("--only", f.real.only, "Only matrices whose name matches this; gaussian, student-t, outliers are made")
      ->type_name("REGEX");
  app.add_option("--matrices", f.real.most, "Of each PATH, this many, evenly chosen; usually ten of a directory")
      ->check(CLI::PositiveNumber);
  sinq_cli::add_moments_flag(app, f.real.moments);
  app.add_option("--synthetic-shape", f.synthetic_shape, "Rows and columns of the matrices that are made")
      ->expected(2)
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--seed", f.seed, "Of the matrices that are made")->capture_default_str();
  app.add_option("--bits", f.widths.bits, "Bits of a code; give it again for another width")
      ->check(CLI::IsMember({2, 3, 4, 5, 6, 8}))
      ->expected(1)
      ->take_all()
      ->capture_default_str();
  app.add_option("--group-size", f.widths.group_sizes, "Columns that share a scale; give it again for another")
      ->check(CLI::PositiveNumber)
      ->expected(1)
      ->take_all()
      ->capture_default_str();
  app.add_option("--method", f.methods, "A method beside rtn; give it again for another; without it, all")
      ->check(CLI::IsMember(names))
      ->expected(1)
      ->take_all();
  app.add_option("--threads", f.threads, "Threads that quantize")->check(CLI::Range(1, 1024))->capture_default_str();
  app.add_option("--csv", f.csv, "Write every measurement to this file")->type_name("FILE");
  app.add_option("--json", f.json, "Write everything to this file")->type_name("FILE");
  app.add_option("--plot", f.plot, "Draw error against bits per weight, with gnuplot")->type_name("FILE.svg");
  app.add_flag("--verbose", f.verbose, "Print every matrix, not only the means");
}

int fail(std::string_view message, int status = 1) {
  fmt::print(stderr, "sinq_quality: error: {}\n", sinq_cli::one_line(message));
  return status;
}

} // namespace

int main(int argc, char** argv) {
  flags f;
  CLI::App app{"Quantizes real and synthetic matrices with every method and tells the errors.", "sinq_quality"};
  add_flags(app, f);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& failure) {
    return app.exit(failure);
  }
  sinq_cli::catch_signals();
  const result<void> done = run(f);
  if (!done) return fail(done.error().message, done.error().code == errc::cancelled ? 130 : 1);
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) return fail("standard output cannot be written");
  return 0;
}

int report_failure(std::string_view message) {
  return fail(message);
}

} // namespace sinq_quality

int main(int argc, char** argv) {
  try {
    return sinq_quality::main(argc, argv);
  } catch (const std::exception& failure) {
    return sinq_quality::report_failure(failure.what());
  }
}
