#include "layering/layers.hpp"
#include "support/catch.hpp"

#include <unistd.h>

using namespace sinq_test;

namespace {

/// A folder of headers to plant faults in, removed at the end.
class planted_tree {
public:
  planted_tree() : root_{fs::temp_directory_path() / ("sinq-layering-" + std::to_string(::getpid()))} {
    fs::remove_all(root_);
    write("core/error.hpp", "");
    write("math/stats.hpp", "#include \"../core/error.hpp\"\n");
    write("quant/rtn.hpp", "#include \"../math/stats.hpp\"\n");
    write("pack/layout.hpp", "#include <sinq/quant/rtn.hpp>\n");
    write("cuda/gemv.cuh", "#include \"../pack/layout.hpp\"\n");
    write("io/file.hpp", "#include <nlohmann/json.hpp>\n#include \"../pack/layout.hpp\"\n");
    write("metrics.hpp", "#include \"pack/layout.hpp\"\n");
    write("sinq.hpp", "/// Everything.\n\n#include \"metrics.hpp\"\n#include \"io/file.hpp\"\n");
  }
  planted_tree(const planted_tree&) = delete;
  planted_tree& operator=(const planted_tree&) = delete;
  ~planted_tree() { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text) const {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream{root_ / path} << "#pragma once\n" << text;
  }
  [[nodiscard]] const fs::path& root() const { return root_; }
  /// The problems as one text.
  [[nodiscard]] std::string problems() const {
    std::string text;
    for (const std::string& problem : layering_problems(root_)) text += problem + "\n";
    return text;
  }

private:
  fs::path root_;
};

} // namespace

TEST_CASE("the library's headers keep their order") {
  const strings problems = layering_problems(SINQ_INCLUDE_DIR "/sinq");
  for (const std::string& problem : problems) UNSCOPED_INFO(problem);
  CHECK(problems.empty());
}

TEST_CASE("headers in order raise no problem") {
  CHECK(planted_tree{}.problems().empty());
}

TEST_CASE("each wrong direction is noticed") {
  struct fault {
    const char* path;
    const char* text;
    const char* expected;
  };
  const auto [path, text, expected] = GENERATE(values<fault>({
      {"core/a.hpp", "#include \"../math/stats.hpp\"\n", "core/a.hpp: core may not include math/stats.hpp\n"},
      {"math/a.hpp", "  # include <sinq/quant/rtn.hpp> // why\n", "math/a.hpp: math may not include quant/rtn.hpp\n"},
      {"quant/a.hpp", "#include \"../pack/layout.hpp\"\n", "quant/a.hpp: quant may not include pack/layout.hpp\n"},
      {"pack/a.hpp", "#include \"../io/file.hpp\"\n", "pack/a.hpp: pack may not include io/file.hpp\n"},
      {"kernels/cpu/a.hpp", "#include \"../../quant/rtn.hpp\"\n",
       "kernels/cpu/a.hpp: kernels may not include quant/rtn.hpp\n"},
      {"cuda/a.cuh", "#include \"../quant/rtn.hpp\"\n", "cuda/a.cuh: cuda may not include quant/rtn.hpp\n"},
      {"pack/a.hpp", "#include \"../cuda/gemv.cuh\"\n", "pack/a.hpp: pack may not include cuda/gemv.cuh\n"},
      {"io/a.hpp", "#include \"../quant/rtn.hpp\"\n", "io/a.hpp: io may not include quant/rtn.hpp\n"},
      {"metrics.hpp", "#include \"quant/rtn.hpp\"\n", "metrics.hpp: metrics.hpp may not include quant/rtn.hpp\n"},
      {"pack/a.hpp", "#include \"../metrics.hpp\"\n", "pack/a.hpp: pack may not include metrics.hpp\n"},
      {"model/a.hpp", "#include <sinq/sinq.hpp>\n", "model/a.hpp: model may not include sinq.hpp\n"},
      {"quant/a.hpp", "#include <nlohmann/json.hpp>\n", "quant/a.hpp: only io may include nlohmann/json.hpp\n"},
      {"core/a.hpp", "#include \"absent.hpp\"\n", "core/a.hpp: core/absent.hpp is not a header of the library\n"},
      {"other/a.hpp", "", "other/a.hpp: other has no place in the order of layers\n"},
      {"sinq.hpp", "#include \"metrics.hpp\"\nint x;\n", "sinq.hpp: more than includes: int x;\n"},
  }));
  const planted_tree tree;
  tree.write(path, text);
  CHECK(tree.problems() == expected);
}

TEST_CASE("headers that include each other are noticed, even inside one folder") {
  const planted_tree tree;
  tree.write("core/a.hpp", "#include \"b.hpp\"\n");
  tree.write("core/b.hpp", "#include \"c.hpp\"\n");
  tree.write("core/c.hpp", "#include \"a.hpp\"\n");
  CHECK(tree.problems() == "cycle: core/a.hpp -> core/b.hpp -> core/c.hpp -> core/a.hpp\n");
}

TEST_CASE("a kernel that includes Eigen, even from afar, is noticed") {
  const planted_tree tree;
  tree.write("core/error.hpp", "#include <Eigen/Core>\n");
  CHECK(tree.problems() == "cuda/gemv.cuh: CUDA may not compile core/error.hpp, which includes Eigen/Core\n");
}

TEST_CASE("a header that grew too long or lost its guard is noticed") {
  const planted_tree tree;
  tree.write("math/a.hpp", std::string(299, '\n'));
  tree.write("kernels/a.hpp", std::string(449, '\n'));
  CHECK(tree.problems().empty());
  tree.write("math/a.hpp", std::string(300, '\n'));
  tree.write("kernels/a.hpp", std::string(450, '\n'));
  std::ofstream{tree.root() / "core/error.hpp"} << "// nothing\n";
  CHECK(tree.problems() == "core/error.hpp: no #pragma once\nkernels/a.hpp: 451 lines, at most 450\n"
                           "math/a.hpp: 301 lines, at most 300\n");
}

TEST_CASE("a folder without headers is a problem, not a success") {
  const planted_tree tree;
  for (const char* path : {"core", "math", "quant", "pack", "cuda", "io", "metrics.hpp", "sinq.hpp"})
    fs::remove_all(tree.root() / path);
  CHECK(tree.problems().ends_with(": no headers\n"));
}
