#include "plot.hpp"

#include "pareto.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include <unistd.h>

namespace sinq_quality {

namespace fs = std::filesystem;
using sinq::errc;
using sinq::make_error;
using sinq::result;

result<void> check_gnuplot() {
  const char* const path = std::getenv("PATH");
  std::istringstream folders{path != nullptr ? path : ""};
  for (std::string folder; std::getline(folders, folder, ':');)
    if (::access((folder.empty() ? "gnuplot" : folder + "/gnuplot").c_str(), X_OK) == 0) return {};
  return make_error(errc::not_found, "--plot needs gnuplot, which is not in PATH (Debian: apt install gnuplot-nox)");
}

namespace {

/// One dot of a panel.
struct dot {
  std::string label;
  std::string text; ///< beside it, if it is on the front
  trade_off at;
  bool on_front = false;
};

struct metric {
  const char* name;
  double measurement::*value;
};

constexpr metric metrics[]{{"relative error", &measurement::error},
                           {"column-normalised error", &measurement::column_error}};

std::vector<dot> dots_of(const set_summary& summary, const metric& shown) {
  std::vector<dot> dots;
  std::vector<trade_off> choices;
  for (const mean_row& row : summary.rows) {
    if (row.matrices != summary.matrices || !(row.mean.*shown.value > 0)) continue;
    choices.push_back({row.mean.bits_per_weight, row.mean.*shown.value});
    const std::string label = row.mean.what.label();
    dots.push_back({label, fmt::format("{} g{}", label, row.mean.group_size), choices.back()});
  }
  const std::vector<bool> front = pareto_front(choices);
  for (std::size_t n = 0; n < dots.size(); ++n) dots[n].on_front = front[n];
  std::stable_sort(dots.begin(), dots.end(),
                   [](const dot& a, const dot& b) { return a.at.bits_per_weight < b.at.bits_per_weight; });
  return dots;
}

/// One panel: every label a series of its own, with the same colour and sign in all panels.
std::string panel(const set_summary& summary, const metric& shown, const std::vector<std::string>& labels,
                  std::size_t number) {
  const std::vector<dot> dots = dots_of(summary, shown);
  std::string data, series;
  for (std::size_t n = 0; n < labels.size(); ++n) {
    std::string lines;
    for (const dot& d : dots)
      if (d.label == labels[n]) lines += fmt::format("{} {}\n", d.at.bits_per_weight, d.at.error);
    if (lines.empty()) continue;
    data += fmt::format("$points_{}_{} << EOD\n{}EOD\n", number, n, lines);
    series += fmt::format("$points_{0}_{1} using 1:2 with points lc {2} pt {3} ps 0.7 title '{4}', ", number, n, n + 1,
                          n % 13 + 1, labels[n]);
  }
  data += fmt::format("$front_{} << EOD\n", number);
  for (const dot& d : dots)
    if (d.on_front) data += fmt::format("{} {} \"{}\"\n", d.at.bits_per_weight, d.at.error, d.text);
  data += "EOD\n";
  series += fmt::format("$front_{0} using 1:2 with lines lc 'black' lw 1.2 title 'Pareto front', "
                        "$front_{0} using 1:2 with points lc 'black' pt 6 ps 1.3 notitle, "
                        "$front_{0} using 1:2:3 with labels right offset -0.8,-0.5 font ',8' notitle\n",
                        number);
  double least = 1, most = 0;
  for (const dot& d : dots) least = std::min(least, d.at.error), most = std::max(most, d.at.error);
  return fmt::format("{}set title '{}, mean of {} matrices'\nset ylabel '{}'\nset yrange [{}:{}]\nplot {}", data,
                     summary.set, summary.matrices, shown.name, 0.85 * least, 1.15 * most, series);
}

/// A folder of its own that goes away with it.
class temporary_folder {
public:
  temporary_folder() {
    std::error_code ignored;
    std::string name = (fs::temp_directory_path(ignored) / "sinq_quality-XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) path_ = name;
  }
  temporary_folder(const temporary_folder&) = delete;
  temporary_folder& operator=(const temporary_folder&) = delete;
  ~temporary_folder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  [[nodiscard]] const fs::path& path() const { return path_; }

private:
  fs::path path_;
};

} // namespace

std::string gnuplot_script(const std::vector<set_summary>& summaries, const std::string& target) {
  std::vector<std::string> labels;
  for (const set_summary& summary : summaries)
    for (const mean_row& row : summary.rows)
      if (std::find(labels.begin(), labels.end(), row.mean.what.label()) == labels.end())
        labels.push_back(row.mean.what.label());
  std::string quoted;
  for (const char c : target) quoted += c == '\'' ? std::string{"''"} : std::string{c};
  std::string script = fmt::format("set terminal svg size {},1100 dynamic noenhanced font 'sans,12' "
                                   "background rgb 'white'\nset output '{}'\n",
                                   900 * summaries.size(), quoted);
  script += fmt::format("set multiplot layout {},{}\n", std::size(metrics), summaries.size());
  script += "set logscale y\nset ytics (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1)\n"
            "set grid\nset key outside right\nset xlabel 'bits per weight'\nset offsets graph 0.16, 0.02, 0, 0\n";
  std::size_t number = 0;
  for (const metric& shown : metrics)
    for (const set_summary& summary : summaries) script += panel(summary, shown, labels, number++);
  return script + "unset multiplot\nunset output\n";
}

result<std::string> draw_svg(const std::vector<set_summary>& summaries) {
  if (result<void> there = check_gnuplot(); !there) return there.error();
  const temporary_folder folder;
  if (folder.path().empty()) return make_error(errc::io, "no temporary folder can be made for gnuplot");
  const fs::path target = folder.path() / "plot.svg";
  const auto before = std::signal(SIGPIPE, SIG_IGN); // a gnuplot that ends early is told by its status
  std::FILE* const pipe = ::popen("gnuplot", "w");
  if (pipe == nullptr) return make_error(errc::io, "gnuplot cannot be started");
  const std::string script = gnuplot_script(summaries, target.string());
  const bool written = std::fwrite(script.data(), 1, script.size(), pipe) == script.size();
  const int status = ::pclose(pipe);
  std::signal(SIGPIPE, before);
  std::ifstream in{target, std::ios::binary};
  std::string svg{std::istreambuf_iterator<char>{in}, {}};
  if (!written || status != 0 || svg.find("</svg>") == std::string::npos)
    return make_error(errc::io, "gnuplot failed with status ", status, " and left ", svg.size(), " bytes");
  return svg;
}

} // namespace sinq_quality
