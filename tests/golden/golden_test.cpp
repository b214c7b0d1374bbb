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

void check_quantizer(const golden_case& c) {
  INFO(c.path.string());
  const tensor w = read(open(c.path.parent_path() / ("input_" + c.input + ".safetensors")), "w");
  sinq::quantize_options options;
  options.method = sinq::parse_method(c.method).value();
  options.bits = c.bits_or_iterations;
  options.group_size = c.group_size;
  options.aux = sinq::aux_dtype::f32;
  const auto q = sinq::quantize(w.view(), options);
  REQUIRE(q);
  sinq_test::plain_result plain{{q->codes.begin(), q->codes.end()}, q->scale, q->zero, q->col_scale};
  if (!q->format.has_col_scale) plain.t.assign(w.cols, 1.0f);
  sinq_test::check_against_golden(c, plain);
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
