#pragma once

/// The golden vectors, and how results are compared with them; see README.md for the one ambiguity.

#include "support/catch.hpp"
#include "support/compare.hpp"

#include <sinq/core/convert.hpp>
#include <sinq/io/safetensors.hpp>
#include <sinq/math/sinkhorn.hpp>
#include <sinq/quant/quantize.hpp>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

namespace sinq_test {

/// Golden scales were computed in f32 with other roundings of exp, log and sums: a few 1e-7 apart, 1e-5 at most.
inline constexpr double scale_tolerance = 1e-5;
/// Codes may differ at rounding ties alone, by one level.
inline constexpr double equal_codes = 0.9999;
/// The same where an iteration or a mean of another rounding stands before the codes; measured: 2 of 8e5 differ (HQQ).
inline constexpr double equal_codes_of_means = 0.999;
/// Means and 20 iterations on them in f64 here and f32 there: zero points agree to 3e-7 of their size, or of 1.
inline constexpr double zero_tolerance = 1e-6;
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

/// METHOD-bB-gG-NAME, METHOD_2d-bB-tT-NAME with square tiles, or sinkhorn-iI-NAME.
struct golden_case {
  std::filesystem::path path;
  std::string method;
  std::string input;
  int bits_or_iterations = 0;
  std::size_t group_size = 0;

  [[nodiscard]] bool square() const { return method.ends_with("_2d"); }
  /// Name in the method table.
  [[nodiscard]] std::string quantizer() const { return square() ? method.substr(0, method.size() - 3) : method; }
  /// Rows that share a t in a matrix of that many.
  [[nodiscard]] std::size_t tile_rows(std::size_t rows) const { return square() ? group_size : rows; }
  [[nodiscard]] std::filesystem::path input_path() const {
    return path.parent_path() / ("input_" + input + ".safetensors");
  }
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

/// What a quantizer made of a matrix, in plain arrays: codes [N x K], scale and zero [N x G], t [tiles x K].
struct plain_result {
  std::vector<float> codes, scale, zero, t;
};

/// Rows [i0, i0 + rows) of columns [j0, j0 + cols) of a row-major array with `stride` columns.
[[nodiscard]] inline std::vector<float> block_of(const std::vector<float>& all, std::size_t stride, std::size_t i0,
                                                 std::size_t j0, std::size_t rows, std::size_t cols) {
  std::vector<float> block;
  for (std::size_t i = i0; i < i0 + rows; ++i)
    for (std::size_t j = j0; j < j0 + cols; ++j) block.push_back(all[i * stride + j]);
  return block;
}

/// All entries within the tolerance of the expected ones, relative to these or to 1 where they are smaller, but for a
/// part `odd` of them, which may be off by `worst`.
[[nodiscard]] inline verdict close_but_for(std::span<const float> actual, std::span<const float> expected,
                                           double tolerance, double odd, double worst) {
  if (actual.size() != expected.size()) return {false, "sizes differ"};
  std::size_t found = 0;
  for (std::size_t n = 0; n < actual.size(); ++n) {
    const double difference = std::fabs(double{actual[n]} - double{expected[n]});
    if (difference <= tolerance * std::max(1.0, std::fabs(double{expected[n]}))) continue;
    ++found;
    if (!(difference <= worst))
      return {false, "entry " + std::to_string(n) + " is " + std::to_string(actual[n]) + ", expected " +
                         std::to_string(expected[n])};
  }
  if (static_cast<double>(found) <= odd * static_cast<double>(actual.size())) return {};
  return {false, std::to_string(found) + " of " + std::to_string(actual.size()) + " entries differ"};
}

/// Zero points: RTN's are whole numbers and equal; those of means agree to their last bits. HQQ at 2 bits turns the
/// last bits of a mean into another code of a weight that lies between two, now and then; measured: 1.7 % of the groups
/// differ, by up to 0.032.
[[nodiscard]] inline verdict same_zeros(const golden_case& c, std::span<const float> zero,
                                        std::span<const float> golden) {
  const bool moves = c.method == "hqq" && c.bits_or_iterations == 2;
  if (moves) return close_but_for(zero, golden, zero_tolerance, 0.02, 0.05);
  const bool of_means = c.method.ends_with("hqq") || c.method.find("nf") != std::string::npos;
  return close_but_for(zero, golden, of_means ? zero_tolerance : 0, 0, 0);
}

/// One tile of a golden SINQ case in two dimensions where rounding decides when the Sinkhorn iteration stops: the
/// imbalances of two iterates agree to the last bits, and stopping at the earlier one gives the golden tile.
[[nodiscard]] inline bool stops_by_rounding(const golden_case& c, sinq::matrix_view<const float> tile,
                                            const plain_result& golden) {
  for (int k = 1; k < 16; ++k) {
    sinq::quantize_options options;
    options.bits = c.bits_or_iterations;
    options.group_size = tile.cols();
    options.aux = sinq::aux_dtype::f32;
    options.sinkhorn.rule = sinq::sinkhorn_rule::reference;
    options.sinkhorn.iterations = k;
    options.refine = sinq::refine_mode::none;
    const auto q = sinq::quantize(tile, options);
    REQUIRE(q);
    if (!same_split(q->scale, q->col_scale, golden.scale, golden.t, false) || q->zero != golden.zero) continue;
    if (!std::equal(q->codes.begin(), q->codes.end(), golden.codes.begin())) continue;
    const float here = sinq::sinkhorn_normalizer<float>{options.sinkhorn}(tile)->report.imbalance_after;
    options.sinkhorn.iterations = k + 1;
    const float next = sinq::sinkhorn_normalizer<float>{options.sinkhorn}(tile)->report.imbalance_after;
    return std::fabs(here - next) <= 1e-6f * here;
  }
  return false;
}

/// One tile: its place and size.
struct tile_place {
  std::size_t i0, j0, rows, cols;
};

/// Scale and t of one tile. Where only rounding tells when the iteration stops, the golden codes and zero points take
/// the place of the tile's own.
inline void check_tile(const golden_case& c, const tensor& w, const tile_place& at, const plain_result& golden,
                       plain_result& q) {
  const std::size_t groups = q.scale.size() / w.rows;
  const std::size_t g = at.j0 / c.group_size;
  const auto cut = [&](const plain_result& from) {
    const std::size_t tile = c.square() ? at.i0 / c.group_size : 0;
    return plain_result{block_of(from.codes, w.cols, at.i0, at.j0, at.rows, at.cols),
                        block_of(from.scale, groups, at.i0, g, at.rows, 1),
                        block_of(from.zero, groups, at.i0, g, at.rows, 1),
                        block_of(from.t, w.cols, tile, at.j0, 1, at.cols)};
  };
  const std::vector<float> values = block_of(w.values, w.cols, at.i0, at.j0, at.rows, at.cols);
  const sinq::matrix_view<const float> view{values.data(), at.rows, at.cols};
  const auto balanced = sinq::sinkhorn_normalizer<float>{{.rule = sinq::sinkhorn_rule::reference}}(view);
  REQUIRE(balanced);
  const plain_result mine = cut(q);
  const plain_result theirs = cut(golden);
  INFO("tile at " << at.i0 << ", " << at.j0 << ", imbalance " << balanced->report.imbalance_after);
  const verdict split =
      same_split(mine.scale, mine.t, theirs.scale, theirs.t, balanced->report.imbalance_after < converged);
  if (split || !c.square() || !stops_by_rounding(c, view, theirs)) {
    CHECK(split);
    return;
  }
  WARN(c.path.filename().string() << ": rounding decides where the iteration of the tile at " << at.i0 << ", " << at.j0
                                  << " stops");
  for (std::size_t i = at.i0; i < at.i0 + at.rows; ++i) {
    q.zero[i * groups + g] = golden.zero[i * groups + g];
    for (std::size_t j = at.j0; j < at.j0 + at.cols; ++j) q.codes[i * w.cols + j] = golden.codes[i * w.cols + j];
  }
}

/// Compares with a golden case: codes, zero points, and scale and t tile by tile.
inline void check_against_golden(const golden_case& c, plain_result q) {
  const auto file = open(c.path);
  const tensor w = read(open(c.input_path()), "w");
  plain_result golden{read(file, "codes").values, read(file, "scale").values, read(file, "zero").values,
                      read(file, "t").values};
  if (golden.zero.size() == 1) golden.zero.assign(golden.scale.size(), golden.zero[0]); // one for all
  REQUIRE(q.codes.size() == golden.codes.size());
  REQUIRE(q.scale.size() == golden.scale.size());
  REQUIRE(q.zero.size() == golden.zero.size());
  REQUIRE(q.t.size() == golden.t.size());
  const std::size_t height = c.tile_rows(w.rows);
  for (std::size_t i0 = 0; i0 < w.rows; i0 += height)
    for (std::size_t j0 = 0; j0 < w.cols; j0 += c.group_size)
      check_tile(c, w, {i0, j0, std::min(height, w.rows - i0), std::min(c.group_size, w.cols - j0)}, golden, q);
  const bool exact = c.quantizer() == "rtn" || c.quantizer() == "sinq";
  CHECK(same_codes(std::span<const float>{q.codes}, std::span<const float>{golden.codes},
                   exact ? equal_codes : equal_codes_of_means));
  CHECK(same_zeros(c, q.zero, golden.zero));
}

} // namespace sinq_test
