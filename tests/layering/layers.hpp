#pragma once

/// Reads the headers of the library and says where they break the order of its folders.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace sinq_test {

namespace fs = std::filesystem;
using strings = std::vector<std::string>;

/// Which layers each layer may include. A layer is a folder of include/sinq or a header that lies directly in it.
inline const std::map<std::string, std::set<std::string>>& allowed_layers() {
  static const std::map<std::string, std::set<std::string>> allowed{
      {"core", {"core"}},
      {"math", {"core", "math"}},
      {"quant", {"core", "math", "quant"}},
      {"pack", {"core", "math", "quant", "pack"}},
      {"kernels", {"core", "math", "pack", "kernels"}},
      {"io", {"core", "math", "pack", "kernels", "io"}},
      {"model", {"core", "math", "quant", "pack", "kernels", "io", "model", "metrics.hpp"}},
      {"metrics.hpp", {"core", "math", "pack"}},
      {"cuda", {"core", "math", "pack", "cuda"}},
      {"cuda.hpp", {"core", "math", "pack", "cuda"}},
      {"compile.hpp", {"kernels", "quant"}},
      {"sinq.hpp", {"core", "math", "quant", "pack", "kernels", "io", "model", "metrics.hpp"}},
  };
  return allowed;
}

/// One header: its lines, and what it includes.
struct header {
  std::string path; ///< from include/sinq
  std::string layer;
  strings lines;
  strings own;     ///< headers of the library, as paths from include/sinq
  strings foreign; ///< all others, as written
};

namespace detail {

[[nodiscard]] inline header read_header(const fs::path& root, const fs::path& file) {
  static const std::regex include{R"(^\s*#\s*include\s*([<"])([^>"]+)[>"].*)"};
  header h;
  h.path = fs::relative(file, root).generic_string();
  h.layer = h.path.substr(0, h.path.find('/'));
  std::ifstream in{file};
  for (std::string line; std::getline(in, line);) {
    std::smatch match;
    if (std::regex_match(line, match, include)) {
      const std::string name = match[2];
      if (match[1] == "\"")
        h.own.push_back(fs::relative(fs::weakly_canonical(file.parent_path() / name), root).generic_string());
      else if (name.starts_with("sinq/"))
        h.own.push_back(name.substr(5));
      else
        h.foreign.push_back(name);
    }
    h.lines.push_back(std::move(line));
  }
  return h;
}

inline void check_includes(const header& h, const std::map<std::string, header>& all, strings& problems) {
  const auto allowed = allowed_layers().find(h.layer);
  if (allowed == allowed_layers().end()) {
    problems.push_back(h.path + ": " + h.layer + " has no place in the order of layers");
    return;
  }
  for (const std::string& name : h.own) {
    const auto target = all.find(name);
    if (target == all.end())
      problems.push_back(h.path + ": " + name + " is not a header of the library");
    else if (!allowed->second.contains(target->second.layer))
      problems.push_back(h.path + ": " + h.layer + " may not include " + name);
  }
  for (const std::string& name : h.foreign)
    if (name.starts_with("nlohmann/") && h.layer != "io") problems.push_back(h.path + ": only io may include " + name);
}

inline void check_form(const header& h, strings& problems) {
  const std::size_t longest = h.layer == "kernels" || h.layer == "cuda" ? 450 : 300;
  if (h.lines.size() > longest)
    problems.push_back(h.path + ": " + std::to_string(h.lines.size()) + " lines, at most " + std::to_string(longest));
  if (std::find(h.lines.begin(), h.lines.end(), "#pragma once") == h.lines.end())
    problems.push_back(h.path + ": no #pragma once");
  if (h.path != "sinq.hpp") return;
  for (const std::string& line : h.lines)
    if (!line.empty() && !line.starts_with("#include ") && !line.starts_with("//") && line != "#pragma once")
      problems.push_back(h.path + ": more than includes: " + line);
}

/// What CUDA compiles is free of Eigen.
inline void check_kernel(const header& kernel, const std::map<std::string, header>& all, strings& problems) {
  if (!kernel.path.ends_with(".cuh")) return;
  strings pending{kernel.path};
  std::set<std::string> seen;
  while (!pending.empty()) {
    const std::string path = pending.back();
    pending.pop_back();
    if (!all.contains(path) || !seen.insert(path).second) continue;
    for (const std::string& name : all.at(path).foreign)
      if (name.starts_with("Eigen/"))
        problems.push_back(kernel.path + ": CUDA may not compile " + path + ", which includes " + name);
    pending.insert(pending.end(), all.at(path).own.begin(), all.at(path).own.end());
  }
}

inline void find_cycles(const std::string& path, const std::map<std::string, header>& all, strings& chain,
                        std::set<std::string>& finished, strings& problems) {
  if (finished.contains(path) || !all.contains(path)) return;
  if (const auto start = std::find(chain.begin(), chain.end(), path); start != chain.end()) {
    std::string cycle;
    for (auto link = start; link != chain.end(); ++link) cycle += *link + " -> ";
    problems.push_back("cycle: " + cycle + path);
    return;
  }
  chain.push_back(path);
  for (const std::string& next : all.at(path).own) find_cycles(next, all, chain, finished, problems);
  chain.pop_back();
  finished.insert(path);
}

} // namespace detail

/// Everything wrong with the headers under `include_sinq`, a sentence each; empty if all is well.
[[nodiscard]] inline strings layering_problems(const fs::path& include_sinq) {
  const fs::path root = fs::canonical(include_sinq);
  std::map<std::string, header> all;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator{root})
    if (entry.path().extension() == ".hpp" || entry.path().extension() == ".cuh") {
      header h = detail::read_header(root, entry.path());
      all.emplace(h.path, std::move(h));
    }
  strings problems;
  if (all.empty()) problems.push_back(root.string() + ": no headers");
  strings chain;
  std::set<std::string> finished;
  for (const auto& [path, h] : all) {
    detail::check_includes(h, all, problems);
    detail::check_form(h, problems);
    detail::check_kernel(h, all, problems);
    detail::find_cycles(path, all, chain, finished, problems);
  }
  return problems;
}

} // namespace sinq_test
