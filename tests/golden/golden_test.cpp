/// Sinkhorn, RTN and SINQ against vectors made by the official code; see README.md for the one ambiguity.

#include "golden/golden.hpp"

#include <sinq/sinq.hpp>

namespace {

using sinq_test::cases;
using sinq_test::folders;
using sinq_test::golden_case;
using sinq_test::open;
using sinq_test::read;
using sinq_test::same_split;
using sinq_test::scale_tolerance;
using sinq_test::tensor;

/// Whether every code is the nearest one to its weight under its scale, zero point and t: within half a step, and a
/// thousandth for the roundings of the normalised weight, or the last one on its side.
void check_nearest(const tensor& w, const sinq::quantized_matrix& q) {
  const double top = sinq::max_code(q.format.bits);
  for (std::size_t i = 0; i < w.rows; ++i)
    for (std::size_t j = 0; j < w.cols; ++j) {
      const std::size_t g = j / q.format.group_size;
      const double step = double{q.scale_matrix()(i, g)} * double{q.col_scale_at(i, j)};
      const double place = std::clamp(double{w.view()(i, j)} / step + double{q.zero_at(i, g)}, 0.0, top);
      if (!(std::fabs(place - q.code_matrix()(i, j)) <= 0.501)) {
        INFO(i << ", " << j << " at " << place);
        REQUIRE(std::fabs(place - q.code_matrix()(i, j)) <= 0.501);
      }
    }
}

void check_quantizer(const golden_case& c) {
  INFO(c.path.string());
  const auto input = open(c.input_path());
  const tensor w = read(input, "w");
  const tensor x = read(input, "x");
  sinq::input_moments inputs;
  inputs.inputs = x.view().eigen();
  sinq::quantize_options options;
  options.method = sinq::parse_method(c.quantizer()).value();
  options.bits = c.bits_or_iterations;
  options.group_size = c.group_size;
  options.tile_rows = c.square() ? c.group_size : 0;
  options.aux = sinq::aux_dtype::f32;
  options.refine = sinq::refine_mode::none;
  options.inputs = &inputs;
  options.sinkhorn.rule = sinq::sinkhorn_rule::reference;
  const auto q = sinq::quantize(w.view(), options);
  REQUIRE(q);
  if (c.method.ends_with("hqq")) check_nearest(w, *q);
  sinq_test::plain_result plain{{q->codes.begin(), q->codes.end()}, q->scale, q->zero, q->col_scale};
  if (!q->format.has_col_scale) plain.t.assign(q->format.row_tiles() * w.cols, 1.0f);
  sinq_test::check_against_golden(c, plain);
}

void check_all(std::string_view method) {
  for (const auto& folder : folders())
    for (const golden_case& c : cases(folder, method)) check_quantizer(c);
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
      options.rule = sinq::sinkhorn_rule::reference;
      options.f64_sums = true;
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
  check_all("rtn");
}

TEST_CASE("sinq agrees with the official code") {
  check_all("sinq");
}

TEST_CASE("rtn and sinq in square tiles agree with the official code") {
  check_all("rtn_2d");
  check_all("sinq_2d");
}

TEST_CASE("nf4 and nf3 agree with the official code") {
  check_all("nf4");
  check_all("nf3");
}

TEST_CASE("sinq_nf4 and sinq_nf3 agree with the official code") {
  check_all("sinq_nf4");
  check_all("sinq_nf3");
}

TEST_CASE("hqq agrees with the official code") {
  check_all("hqq");
}

TEST_CASE("sinq_hqq agrees with the official code") {
  check_all("sinq_hqq");
}

TEST_CASE("sinq_noz agrees with the official code") {
  check_all("sinq_noz");
}

TEST_CASE("awq agrees with the official code") {
  check_all("awq");
}

TEST_CASE("asinq and asinq_l1 agree with the official code") {
  check_all("asinq");
  check_all("asinq_l1");
}

TEST_CASE("every golden case of this checkout is found") {
  CHECK(cases(SINQ_TEST_DATA_DIR, "sinkhorn").size() == 9);
  CHECK(cases(SINQ_TEST_DATA_DIR, "rtn").size() == 10);
  CHECK(cases(SINQ_TEST_DATA_DIR, "sinq").size() == 10);
  for (const std::string_view method : {"rtn_2d", "sinq_2d", "nf4", "nf3", "sinq_nf4", "sinq_nf3", "hqq", "sinq_hqq",
                                        "sinq_noz", "awq", "asinq", "asinq_l1"}) {
    INFO(method);
    CHECK(cases(SINQ_TEST_DATA_DIR, method).size() == 2);
  }
#ifdef SINQ_SHARED_DIR
  CHECK(cases(folders().back(), "sinkhorn").size() >= 15);
  CHECK(cases(folders().back(), "sinq").size() >= 39);
  for (const std::string_view method : {"rtn_2d", "sinq_2d"}) CHECK(cases(folders().back(), method).size() >= 4);
  for (const std::string_view method : {"nf4", "nf3", "sinq_nf4", "sinq_nf3"})
    CHECK(cases(folders().back(), method).size() >= 5);
  for (const std::string_view method : {"sinq_hqq", "awq", "asinq", "asinq_l1"})
    CHECK(cases(folders().back(), method).size() >= 10);
  CHECK(cases(folders().back(), "sinq_noz").size() >= 15);
  CHECK(cases(folders().back(), "hqq").size() >= 20);
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

TEST_CASE("the comparison of zero points sees a planted error") {
  using sinq_test::close_but_for;
  const std::vector<float> zero(100, -0.25f);
  std::vector<float> moved = zero;
  CHECK(close_but_for(moved, zero, 1e-6, 0, 0));
  moved[7] += 2e-6f;
  CHECK_FALSE(close_but_for(moved, zero, 1e-6, 0, 0));
  CHECK(close_but_for(moved, zero, 1e-6, 0.01, 0.05));
  moved[8] += 0.04f;
  CHECK_FALSE(close_but_for(moved, zero, 1e-6, 0.01, 0.05));
  CHECK(close_but_for(moved, zero, 1e-6, 0.02, 0.05));
  moved[8] += 0.04f;
  CHECK_FALSE(close_but_for(moved, zero, 1e-6, 0.02, 0.05));
  CHECK_FALSE(close_but_for(std::vector<float>(99), zero, 1, 1, 1));
  moved[8] = std::nanf("");
  CHECK_FALSE(close_but_for(moved, zero, 1e-6, 1, 1e9));
}
