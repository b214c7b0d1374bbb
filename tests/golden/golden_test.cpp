/// Sinkhorn, RTN and SINQ against vectors made by the official code; see README.md for the one ambiguity.

#include "support/catch.hpp"
#include "support/compare.hpp"

#include <sinq/io/safetensors.hpp>
#include <sinq/sinq.hpp>

#include <charconv>
#include <filesystem>
#include <string>
#include <vector>

namespace {

using sinq::matrix_view;
using sinq_test::verdict;

/// Golden scales were computed in f32 with other roundings of exp, log and sums: a few 1e-7 apart, 1e-5 at most.
constexpr double scale_tolerance = 1e-5;
/// Codes may differ at rounding ties alone, by one level.
constexpr double equal_codes = 0.9999;
/// Below this imbalance a tile has converged, and scale and t are defined up to a common factor.
constexpr float converged = 1.01f;

struct tensor {
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::vector<float> values;
  [[nodiscard]] matrix_view<const float> view() const { return {values.data(), rows, cols}; }
  [[nodiscard]] std::span<const float> span() const { return values; }
};

tensor read(const sinq::io::safetensors_file& file, std::string_view name) {
  const sinq::io::tensor_info* found = file.find(name);
  REQUIRE(found != nullptr);
  tensor t;
  t.cols = found->shape.empty() ? 1 : found->shape.back();
  t.rows = found->elements() / t.cols;
  t.values.resize(found->elements());
  const sinq::shared_bytes bytes = file.data(*found);
  if (found->type == sinq::dtype::u8)
    for (std::size_t i = 0; i < t.values.size(); ++i) t.values[i] = static_cast<float>(bytes.data()[i]);
  else
    sinq::load_floats(bytes.data(), found->type, t.values);
  return t;
}

sinq::io::safetensors_file open(const std::filesystem::path& path) {
  auto file = sinq::io::safetensors_file::open(path);
  if (!file) FAIL(file.error().message);
  return *std::move(file);
}

/// METHOD-bB-gG-NAME or sinkhorn-iI-NAME.
struct golden_case {
  std::filesystem::path path;
  std::string method;
  std::string input;
  int bits_or_iterations = 0;
  std::size_t group_size = 0;
};

std::vector<golden_case> cases(const std::filesystem::path& folder, std::string_view method) {
  std::vector<golden_case> found;
  for (const auto& entry : std::filesystem::directory_iterator{folder}) {
    const std::string stem = entry.path().stem().string();
    if (!stem.starts_with(std::string{method} + "-")) continue;
    std::vector<std::string> parts{""};
    for (const char c : stem) c == '-' ? void(parts.emplace_back()) : parts.back().push_back(c);
    golden_case c{entry.path(), parts[0], parts.back(), std::stoi(parts[1].substr(1)), 0};
    if (parts.size() == 4) c.group_size = std::stoul(parts[2].substr(1));
    found.push_back(c);
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
  return found;
}

std::vector<std::filesystem::path> folders() {
  std::vector<std::filesystem::path> found{SINQ_TEST_DATA_DIR};
#ifdef SINQ_SHARED_DIR
  found.emplace_back(std::filesystem::path{SINQ_SHARED_DIR} / "reference" / "golden");
#endif
  return found;
}

/// Scale and t of one tile against the golden ones: each within the tolerance, or, for a converged tile, after a common
/// factor has moved from one to the other.
verdict same_split(const std::vector<float>& scale, const std::vector<float>& t, const std::vector<float>& golden_scale,
                   std::vector<float> golden_t, bool may_move) {
  if (t.size() != golden_t.size() || t.empty()) return {false, "t has another size"};
  std::vector<float> moved = golden_scale;
  if (may_move) {
    const float factor = t[0] / golden_t[0];
    for (float& value : golden_t) value *= factor;
    for (float& value : moved) value /= factor;
  }
  const verdict scales =
      sinq_test::close_each(std::span<const float>{scale}, std::span<const float>{moved}, scale_tolerance);
  if (!scales) return scales;
  return sinq_test::close_each(std::span<const float>{t}, std::span<const float>{golden_t}, scale_tolerance);
}

std::vector<float> tile_of(const tensor& w, std::size_t j0, std::size_t cols) {
  std::vector<float> tile;
  for (std::size_t i = 0; i < w.rows; ++i)
    tile.insert(tile.end(), w.values.begin() + static_cast<std::ptrdiff_t>(i * w.cols + j0),
                w.values.begin() + static_cast<std::ptrdiff_t>(i * w.cols + j0 + cols));
  return tile;
}

void check_quantizer(const golden_case& c) {
  INFO(c.path.string());
  const auto golden = open(c.path);
  const tensor w = read(open(c.path.parent_path() / ("input_" + c.input + ".safetensors")), "w");
  sinq::quantize_options options;
  options.method = sinq::parse_method(c.method).value();
  options.bits = c.bits_or_iterations;
  options.group_size = c.group_size;
  options.aux = sinq::aux_dtype::f32;
  const auto q = sinq::quantize(w.view(), options);
  REQUIRE(q);
  CHECK(sinq_test::same_codes(q->codes.span(), read(golden, "codes").span(), equal_codes));
  CHECK(sinq_test::close_each(std::span<const float>{q->zero}, read(golden, "zero").span(), 0));
  const tensor scale = read(golden, "scale");
  const tensor t = read(golden, "t");
  const sinq::sinkhorn_normalizer<float> normalizer;
  for (std::size_t g = 0; g < q->format.groups(); ++g) {
    const std::size_t j0 = g * c.group_size;
    const std::size_t cols = q->format.group_cols(g);
    std::vector<float> s, golden_s, part, golden_part;
    for (std::size_t i = 0; i < w.rows; ++i) {
      s.push_back(q->scale_matrix()(i, g));
      golden_s.push_back(scale.view()(i, g));
    }
    for (std::size_t j = j0; j < j0 + cols; ++j) {
      part.push_back(q->col_scale_at(j));
      golden_part.push_back(t.values[j]);
    }
    const std::vector<float> tile = tile_of(w, j0, cols);
    const auto balanced = normalizer({tile.data(), w.rows, cols});
    REQUIRE(balanced);
    INFO("group " << g << ", imbalance " << balanced->report.imbalance_after);
    CHECK(same_split(s, part, golden_s, golden_part, balanced->report.imbalance_after < converged));
  }
}

} // namespace

TEST_CASE("sinkhorn agrees with the official code") {
  for (const auto& folder : folders())
    for (const golden_case& c : cases(folder, "sinkhorn")) {
      INFO(c.path.string());
      const auto golden = open(c.path);
      const tensor w = read(open(folder / ("input_" + c.input + ".safetensors")), "w");
      sinq::sinkhorn_options options;
      options.iterations = c.bits_or_iterations;
      const auto n = sinq::sinkhorn_normalizer<float>{options}(w.view().block(0, 0, w.rows, 64));
      REQUIRE(n);
      const std::vector<float> row = read(golden, "row").values;
      const std::vector<float> col = read(golden, "col").values;
      CHECK(same_split(n->row_scale, n->col_scale, row, col, false));
      CHECK(sinq_test::close_to_largest(std::span<const float>{n->values}, read(golden, "scaled").span(), 1e-6));
      const float report[] = {n->report.imbalance_before, n->report.imbalance_after};
      CHECK(sinq_test::close_each(std::span<const float>{report}, read(golden, "imbalance").span(), scale_tolerance));
    }
}

TEST_CASE("rtn agrees with the official code") {
  for (const auto& folder : folders())
    for (const golden_case& c : cases(folder, "rtn")) check_quantizer(c);
}

TEST_CASE("sinq agrees with the official code") {
  for (const auto& folder : folders())
    for (const golden_case& c : cases(folder, "sinq")) check_quantizer(c);
}

TEST_CASE("every golden case of this checkout is found") {
  CHECK(cases(SINQ_TEST_DATA_DIR, "sinkhorn").size() == 9);
  CHECK(cases(SINQ_TEST_DATA_DIR, "rtn").size() == 10);
  CHECK(cases(SINQ_TEST_DATA_DIR, "sinq").size() == 10);
#ifdef SINQ_SHARED_DIR
  CHECK(cases(folders().back(), "sinkhorn").size() >= 15);
  CHECK(cases(folders().back(), "sinq").size() >= 39);
#else
  std::cout << "the full set of golden vectors is not beside this checkout: only its own copies were compared\n";
#endif
}

TEST_CASE("the comparison of scales sees a planted error") {
  const std::vector<float> scale{1.0f, 2.0f}, t{1.5f, 0.5f};
  const std::vector<float> moved_scale{0.5f, 1.0f}, moved_t{3.0f, 1.0f};
  CHECK(same_split(scale, t, scale, t, false));
  CHECK_FALSE(same_split(moved_scale, moved_t, scale, t, false));
  CHECK(same_split(moved_scale, moved_t, scale, t, true));
  CHECK_FALSE(same_split({0.5f, 1.0001f}, moved_t, scale, t, true));
  CHECK_FALSE(same_split(moved_scale, {3.0f, 1.0001f}, scale, t, true));
}
