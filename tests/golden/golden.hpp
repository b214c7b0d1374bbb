#pragma once

/// The golden vectors, and how results are compared with them; see README.md for the one ambiguity.

#include "support/catch.hpp"
#include "support/compare.hpp"

#include <sinq/core/convert.hpp>
#include <sinq/io/safetensors.hpp>
#include <sinq/math/sinkhorn.hpp>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

namespace sinq_test {

/// Golden scales were computed in f32 with other roundings of exp, log and sums: a few 1e-7 apart, 1e-5 at most.
inline constexpr double scale_tolerance = 1e-5;
/// Codes may differ at rounding ties alone, by one level.
inline constexpr double equal_codes = 0.9999;
/// Below this imbalance a tile has converged, and scale and t are defined up to a common factor.
inline constexpr float converged = 1.01f;

struct tensor {
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::vector<float> values;
  [[nodiscard]] sinq::matrix_view<const float> view() const { return {values.data(), rows, cols}; }
  [[nodiscard]] std::span<const float> span() const { return values; }
};

[[nodiscard]] inline tensor read(const sinq::io::safetensors_file& file, std::string_view name) {
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

[[nodiscard]] inline sinq::io::safetensors_file open(const std::filesystem::path& path) {
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

[[nodiscard]] inline std::vector<golden_case> cases(const std::filesystem::path& folder, std::string_view method) {
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

[[nodiscard]] inline std::vector<std::filesystem::path> folders() {
  std::vector<std::filesystem::path> found{SINQ_TEST_DATA_DIR};
#ifdef SINQ_SHARED_DIR
  found.emplace_back(std::filesystem::path{SINQ_SHARED_DIR} / "reference" / "golden");
#endif
  return found;
}

/// Scale and t of one tile against the golden ones: each within the tolerance, or, for a converged tile, after a common
/// factor has moved from one to the other.
[[nodiscard]] inline verdict same_split(const std::vector<float>& scale, const std::vector<float>& t,
                                        const std::vector<float>& golden_scale, std::vector<float> golden_t,
                                        bool may_move) {
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

[[nodiscard]] inline std::vector<float> tile_of(const tensor& w, std::size_t j0, std::size_t cols) {
  std::vector<float> tile;
  for (std::size_t i = 0; i < w.rows; ++i)
    tile.insert(tile.end(), w.values.begin() + static_cast<std::ptrdiff_t>(i * w.cols + j0),
                w.values.begin() + static_cast<std::ptrdiff_t>(i * w.cols + j0 + cols));
  return tile;
}

/// What a quantizer made of a matrix, in plain arrays: codes [N x K], scale and zero [N x G], t [K].
struct plain_result {
  std::vector<float> codes, scale, zero, t;
};

/// Compares with a golden rtn or sinq case: codes, zero points, and scale and t tile by tile.
inline void check_against_golden(const golden_case& c, const plain_result& q) {
  const auto golden = open(c.path);
  const tensor w = read(open(c.path.parent_path() / ("input_" + c.input + ".safetensors")), "w");
  const tensor scale = read(golden, "scale");
  const tensor t = read(golden, "t");
  REQUIRE(q.scale.size() == scale.values.size());
  REQUIRE(q.t.size() == w.cols);
  CHECK(same_codes(std::span<const float>{q.codes}, read(golden, "codes").span(), equal_codes));
  CHECK(close_each(std::span<const float>{q.zero}, read(golden, "zero").span(), 0));
  const std::size_t groups = scale.cols;
  const sinq::sinkhorn_normalizer<float> normalizer;
  for (std::size_t g = 0; g < groups; ++g) {
    const std::size_t j0 = g * c.group_size;
    const std::size_t cols = std::min(c.group_size, w.cols - j0);
    std::vector<float> s, golden_s;
    for (std::size_t i = 0; i < w.rows; ++i) {
      s.push_back(q.scale[i * groups + g]);
      golden_s.push_back(scale.view()(i, g));
    }
    const auto part = [&](const std::vector<float>& all) {
      const auto begin = all.begin() + static_cast<std::ptrdiff_t>(j0);
      return std::vector<float>{begin, begin + static_cast<std::ptrdiff_t>(cols)};
    };
    const std::vector<float> tile = tile_of(w, j0, cols);
    const auto balanced = normalizer({tile.data(), w.rows, cols});
    REQUIRE(balanced);
    INFO("group " << g << ", imbalance " << balanced->report.imbalance_after);
    CHECK(same_split(s, part(q.t), golden_s, part(t.values), balanced->report.imbalance_after < converged));
  }
}

} // namespace sinq_test
