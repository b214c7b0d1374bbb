#include "support/catch.hpp"
#include "support/methods.hpp"

#include <sinq/metrics.hpp>
#include <sinq/quant/quantize.hpp>

using namespace sinq_test;

namespace {

sinq::packed_matrix packed(const matrix& m, sinq::method method) {
  sinq::quantize_options options{.method = method};
  options.refine = sinq::refine_mode::none;
  const auto q = sinq::quantize(m.view(), options);
  if (!q) FAIL(q.error().message);
  auto p = sinq::pack(*q);
  REQUIRE(p);
  return *std::move(p);
}

double error(const matrix& m, const sinq::packed_matrix& p) {
  return sinq::measure_error(m.view(), p)->relative_error;
}

} // namespace

TEST_CASE("rotated weights come back, and outliers cost less than without rotation") {
  const matrix m = with_outliers(64, 192, 81);
  const auto rotated = packed(m, sinq::method::hadamard_rtn);
  CHECK(rotated.format.rotation == 64);
  CHECK(error(m, rotated) < 0.9 * error(m, packed(m, sinq::method::rtn)));
}

TEST_CASE("rows of odd length are not rotated") {
  const matrix m = with_outliers(8, 81, 82);
  const auto p = packed(m, sinq::method::hadamard_rtn);
  CHECK(p.format.rotation == 0);
  CHECK(error(m, p) == error(m, packed(m, sinq::method::rtn)));
}

TEST_CASE("a row that overflows in rotation is named") {
  matrix m = gaussian(4, 64, 83);
  for (float& w : m.view().row(2)) w = 3e38f;
  const auto q = sinq::quantize(m.view(), {.method = sinq::method::hadamard_rtn});
  REQUIRE_FALSE(q);
  CHECK(q.error().code == sinq::errc::not_representable);
  CHECK(q.error().message.find("row 2 overflows") != std::string::npos);
}
