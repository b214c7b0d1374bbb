/// The official package's own door: what it packs, and what compat::official makes of the same weights.

#include "golden/golden.hpp"

#include <sinq/io/official_packing.hpp>
#include <sinq/sinq.hpp>

#include <cmath>

using sinq_test::cases;
using sinq_test::folders;
using sinq_test::golden_case;
using sinq_test::open;
using sinq_test::read;
using sinq_test::tensor;

namespace {

constexpr std::size_t group = 64;

float to_f16(float value) {
  return static_cast<float>(static_cast<sinq::float16>(value));
}

/// A golden case of the official door, taken apart.
struct official_case {
  explicit official_case(const golden_case& c)
      : w{read(open(c.path.parent_path() / ("input_" + c.input + ".safetensors")), "w")}, bits{c.bits_or_iterations} {
    const auto file = open(c.path);
    const bool quantized = c.method == "official_sinq_quantAux";
    scale = read(file, quantized ? "scale.value" : "scale").values;
    zero = read(file, quantized ? "zero.value" : "zero").values;
    t = read(file, "t").values;
    dequant = read(file, "dequant").values;
    const sinq::io::official_packing& packing = sinq::io::packing_of(bits);
    const sinq::io::tensor_info* const found = file.find("packed");
    REQUIRE(found != nullptr);
    REQUIRE(found->type == packing.word);
    const sinq::shared_bytes data = file.data(*found);
    packed.assign(data.span().begin(), data.span().end());
    codes.resize(w.values.size());
    const std::size_t rows = codes.size() / group;
    REQUIRE(found->shape == std::vector{packing.word_rows(rows), group});
    for (std::size_t r = 0; r < rows; ++r)
      sinq::io::unpack_official_row(packing, packed, rows, r, std::span{codes}.subspan(r * group, group));
  }

  tensor w;
  int bits;
  std::vector<sinq::byte> packed;
  std::vector<std::uint8_t> codes;
  std::vector<float> scale, zero, t, dequant;
};

/// ((code - zero) scale) t with the roundings of f16, in which the golden files were dequantized.
std::vector<float> dequantize_in_f16(std::span<const std::uint8_t> codes, const std::vector<float>& scale,
                                     const std::vector<float>& zero, const std::vector<float>& t) {
  std::vector<float> w(codes.size());
  for (std::size_t n = 0; n < w.size(); ++n)
    w[n] = to_f16(to_f16(to_f16(static_cast<float>(codes[n]) - zero[n / group]) * scale[n / group]) * t[n % t.size()]);
  return w;
}

std::vector<golden_case> official_cases() {
  std::vector<golden_case> all;
  for (const auto& folder : folders())
    for (const char* const method : {"official_sinq", "official_sinq_quantAux"})
      for (const golden_case& c : cases(folder, method)) all.push_back(c);
  return all;
}

/// What the gate's way back from the Sinkhorn normalisation leaves to rounding: ties of whole groups.
struct allowance {
  std::size_t groups; ///< whose zero point may be one step off, their codes with it
  std::size_t scales; ///< that may be the f16 number beside
};

constexpr allowance nothing{0, 0};
constexpr allowance of_gated{2, 2};

/// Compares a result with a golden one: everything equal, but for what is allowed.
sinq_test::verdict same_official(const sinq::quantized_matrix& q, const official_case& golden, allowance allowed) {
  std::vector<float> t = q.col_scale;
  if (t.empty()) t.assign(golden.w.cols, 1.0f);
  if (t != golden.t) return {false, "t differs"};
  if (q.scale.size() != golden.scale.size() || q.codes.size() != golden.codes.size()) return {false, "sizes differ"};
  const std::vector<float> weights = dequantize_in_f16(q.codes.span(), q.scale, q.zero, t);
  allowance used = nothing;
  for (std::size_t g = 0; g < q.scale.size(); ++g) {
    const bool same_scale = q.scale[g] == golden.scale[g];
    if (!(std::fabs(q.scale[g] - golden.scale[g]) <= 0x1p-10f * golden.scale[g])) return {false, "a scale differs"};
    if (!same_scale) ++used.scales;
    bool same = q.zero[g] == golden.zero[g];
    for (std::size_t n = g * group; n < (g + 1) * group; ++n) {
      if (std::abs(int{q.codes[n]} - int{golden.codes[n]}) > 1) return {false, "a code differs by more than one"};
      same = same && q.codes[n] == golden.codes[n];
    }
    if (!same) ++used.groups;
    for (std::size_t n = g * group; n < (g + 1) * group && same && same_scale; ++n)
      if (weights[n] != golden.dequant[n]) return {false, "a weight differs"};
  }
  if (used.groups > allowed.groups) return {false, "codes or zero points of too many groups differ"};
  if (used.scales > allowed.scales) return {false, "too many scales differ"};
  return {true, ""};
}

sinq::quantized_matrix quantize(const official_case& golden, bool quant_aux) {
  auto q = sinq::quantize(
      golden.w.view(),
      {.method = sinq::method::sinq, .bits = golden.bits, .compat = sinq::compat::official, .quant_aux = quant_aux});
  if (!q) FAIL(q.error().message);
  return *std::move(q);
}

} // namespace

TEST_CASE("compat official gives what the official door gives") {
  for (const golden_case& c : official_cases()) {
    INFO(c.path.string());
    const official_case golden{c};
    const sinq::quantized_matrix q = quantize(golden, c.method == "official_sinq_quantAux");
    const bool gated = q.method.find("gated") != std::string::npos;
    CHECK(gated == (c.input == "outlier"));
    CHECK(q.method.starts_with(gated ? "rtn" : "sinq"));
    CHECK(same_official(q, golden, gated ? of_gated : nothing));
    if (!gated) {
      const std::vector<std::uint8_t> codes(q.codes.begin(), q.codes.end());
      CHECK(sinq::io::pack_official(sinq::io::packing_of(golden.bits), codes, group) == golden.packed);
    }
    const auto p = sinq::pack(q);
    REQUIRE(p);
    CHECK(sinq::unpack(*p).scale == q.scale);
    CHECK(sinq::unpack(*p).zero == q.zero);
  }
}

TEST_CASE("every golden case of the official door in this checkout is found") {
  CHECK(cases(SINQ_TEST_DATA_DIR, "official_sinq").size() == 4);
  CHECK(cases(SINQ_TEST_DATA_DIR, "official_sinq_quantAux").size() == 2);
}

TEST_CASE("the comparison with the official door sees planted errors") {
  const official_case golden{cases(SINQ_TEST_DATA_DIR, "official_sinq").front()};
  const auto changed = [&](auto change) {
    sinq::quantized_matrix q = quantize(golden, false);
    change(q);
    return q;
  };
  CHECK(same_official(changed([](auto&) {}), golden, nothing));
  CHECK_FALSE(same_official(changed([](auto& q) { q.codes[70] ^= 1; }), golden, nothing));
  CHECK(same_official(changed([](auto& q) { q.codes[70] ^= 1; }), golden, of_gated));
  CHECK_FALSE(same_official(changed([](auto& q) { q.codes[70] ^= 2; }), golden, of_gated));
  CHECK_FALSE(
      same_official(changed([](auto& q) { q.codes[70] ^= 1, q.codes[7] ^= 1, q.codes[700] ^= 1; }), golden, of_gated));
  CHECK_FALSE(same_official(changed([](auto& q) { q.zero[3] += 1; }), golden, nothing));
  CHECK_FALSE(same_official(changed([](auto& q) { q.scale[3] *= 1 + 0x1p-11f; }), golden, nothing));
  CHECK_FALSE(same_official(changed([](auto& q) { q.scale[3] *= 1.01f; }), golden, of_gated));
  CHECK_FALSE(same_official(changed([](auto& q) { q.col_scale[5] *= 1 + 0x1p-20f; }), golden, of_gated));
}

TEST_CASE("compat official refuses what the official door does not have") {
  const std::vector<float> values(33 * 40, 1.0f);
  const sinq::matrix_view<const float> w{values.data(), 33, 40};
  const auto message = [&](sinq::quantize_options o, sinq::errc code) {
    o.compat = sinq::compat::official;
    const auto q = sinq::quantize(w, o);
    REQUIRE_FALSE(q);
    CHECK(q.error().code == code);
    return q.error().message;
  };
  using sinq::errc;
  const auto has = [](const std::string& text, const char* words) { return text.find(words) != std::string::npos; };
  CHECK(has(message({.group_size = 64}, errc::invalid_argument), "group_size is 64"));
  CHECK(has(message({.method = sinq::method::nf4}, errc::invalid_argument), "methods sinq and rtn"));
  CHECK(has(message({.aux = sinq::aux_dtype::f32}, errc::invalid_argument), "f16"));
  CHECK(has(message({.symmetric = true}, errc::invalid_argument), "zero points"));
  CHECK(has(message({.refine = sinq::refine_mode::weights}, errc::invalid_argument), "refinement"));
  const std::vector<float> large(2 * 64, 1e5f);
  const auto q =
      sinq::quantize(sinq::matrix_view<const float>{large.data(), 2, 64}, {.compat = sinq::compat::official});
  REQUIRE_FALSE(q);
  CHECK(q.error().code == errc::not_representable);
  CHECK(has(q.error().message, "row 0, column 0 is 100000"));
  const std::vector<float> few(33 * 64, 0.5f);
  const auto aux = sinq::quantize(sinq::matrix_view<const float>{few.data(), 33, 64},
                                  {.compat = sinq::compat::official, .quant_aux = true});
  REQUIRE_FALSE(aux);
  CHECK(has(aux.error().message, "33 groups, expected a multiple of 32"));
}
