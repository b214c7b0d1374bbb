#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/oracle.hpp"
#include "support/random_matrices.hpp"

#include <sinq/quant/rtn.hpp>

#include <cmath>
#include <set>

using namespace sinq_test;

namespace {

/// Calls f with a quantizer of every width.
template <class F>
void for_each_width(const sinq::rtn_options& options, F&& f) {
  for (const int bits : sinq::supported_bits) f(sinq::rtn{bits, options});
}

float value_at(const sinq::quantized_matrix& q, std::size_t i, std::size_t j) {
  const std::size_t g = j / q.format.group_size;
  return q.scale_matrix()(i, g) * (static_cast<float>(q.code_matrix()(i, j)) - q.zero_at(i, g));
}

void check_half_step(const sinq::rtn& quantize, const named_matrix& kind) {
  const auto q = quantize(kind.m.view());
  REQUIRE(q);
  for (std::size_t i = 0; i < kind.m.rows; ++i)
    for (std::size_t j = 0; j < kind.m.cols; ++j) {
      const std::size_t g = j / quantize.group_size();
      const float top = std::max(std::fabs(q->zero_at(i, g)), static_cast<float>(sinq::max_code(quantize.bits())));
      // the last terms: value_at() rounds its product
      const double limit = double{q->scale_matrix()(i, g)} * (0.5 + 0x1p-23 * double{top}) +
                           0x1p-23 * std::fabs(double{kind.m(i, j)}) + 1e-45;
      const double error = std::fabs(double{value_at(*q, i, j)} - double{kind.m(i, j)});
      if (error <= limit) continue;
      INFO(kind.name << " bits " << quantize.bits() << " at " << i << ", " << j);
      REQUIRE(error <= limit);
    }
}

} // namespace

TEST_CASE("rtn agrees with the oracle") {
  const matrix m = with_outliers(24, 150, 3);
  for_each_width({.group_size = 64}, [&](const auto& quantize) {
    const auto q = quantize(m.view());
    REQUIRE(q);
    const auto exact = oracle::rtn(oracle::to_double(m.view()), quantize.bits(), 64, 0.0);
    std::size_t unequal = 0;
    for (std::size_t i = 0; i < m.rows; ++i)
      for (std::size_t j = 0; j < m.cols; ++j) {
        const double difference =
            std::fabs(q->code_matrix()(i, j) - exact.codes(static_cast<long>(i), static_cast<long>(j)));
        REQUIRE(difference <= 1); // a rounding tie in f32
        unequal += difference != 0;
      }
    CHECK(unequal <= 2);
  });
}

TEST_CASE("every weight comes back within half a step, for every kind, width, shape and mode") {
  for (const bool symmetric : {false, true})
    for (const sinq::zero_mode zero : {sinq::zero_mode::rounded, sinq::zero_mode::fractional})
      for (const sinq::aux_dtype aux : {sinq::aux_dtype::f16, sinq::aux_dtype::bf16, sinq::aux_dtype::f32})
        for (const auto& shape : ragged_shapes)
          for (const named_matrix& kind : every_kind(shape.first, shape.second, 17))
            for_each_width({.group_size = 48, .symmetric = symmetric, .zero = zero, .aux = aux},
                           [&](const sinq::rtn& quantize) { check_half_step(quantize, kind); });
}

TEST_CASE("the grid between smallest and largest weight is used whole") {
  const matrix m = gaussian(16, 4096, 5);
  for (const bool symmetric : {false, true})
    for_each_width({.group_size = 4096, .symmetric = symmetric}, [&](const auto& quantize) {
      if (quantize.bits() == 8) return; // 256 levels of a few thousand normal weights: the tails hold gaps
      const auto q = quantize(m.view());
      REQUIRE(q);
      const std::set<std::uint8_t> used(q->codes.begin(), q->codes.end());
      CHECK(used.size() == static_cast<std::size_t>(sinq::max_code(quantize.bits()) + 1));
      CHECK(q->format.has_zero == !symmetric);
    });
}

TEST_CASE("constant groups are exact to their auxiliaries, and zeros stay zeros") {
  const sinq::rtn_quantizer<4> quantize{{.group_size = 8}};
  for (const float constant : {5.0f, -0.37f, 1e-30f, -3e30f}) {
    const auto q = quantize(matrix{2, 8, constant}.view());
    REQUIRE(q);
    CHECK(value_at(*q, 1, 7) == Approx(constant).epsilon(1e-6));
    CHECK(std::fabs(q->zero_at(0, 0)) <= 2048);
  }
  for (const bool symmetric : {false, true}) {
    const auto q = sinq::rtn_quantizer<3>{{.group_size = 8, .symmetric = symmetric}}(matrix{2, 8}.view());
    REQUIRE(q);
    CHECK(value_at(*q, 0, 0) == 0.0f);
  }
  matrix sparse = gaussian(4, 64, 3);
  for (std::size_t j = 0; j < 64; j += 3) sparse(1, j) = 0.0f;
  const auto q = quantize(sparse.view());
  REQUIRE(q);
  for (std::size_t j = 0; j < 64; j += 3) CHECK(value_at(*q, 1, j) == 0.0f);
}

TEST_CASE("a group of zeros has the scale of the reference") {
  const auto q = sinq::rtn_quantizer<4>{{.group_size = 8}}(matrix{1, 8}.view());
  REQUIRE(q);
  CHECK(q->scale[0] == 1e-4f / 15.0f);
  CHECK(q->zero[0] == 0.0f);
}

TEST_CASE("small weights are not wiped out") {
  const matrix m = gaussian(8, 64, 9, 1e-8);
  const auto q = sinq::rtn_quantizer<4>{{.group_size = 64}}(m.view());
  REQUIRE(q);
  const std::set<std::uint8_t> used(q->codes.begin(), q->codes.end());
  CHECK(used.size() == 16);
}

TEST_CASE("fractional zero points clip nothing") {
  const matrix m = gaussian(32, 64, 10);
  const auto q = sinq::rtn_quantizer<2>{
      {.group_size = 64, .zero = sinq::zero_mode::fractional, .aux = sinq::aux_dtype::f32}}(m.view());
  REQUIRE(q);
  for (std::size_t i = 0; i < 32; ++i) {
    const auto row = m.view().row(i);
    const auto [low, high] = std::minmax_element(row.begin(), row.end());
    CHECK(q->scale[i] * (0 - q->zero[i]) == Approx(*low).epsilon(1e-5));
    CHECK(q->scale[i] * (3 - q->zero[i]) == Approx(*high).epsilon(1e-5));
  }
}

TEST_CASE("a width at compile time is the same quantizer") {
  const matrix m = student_t(8, 100, 11);
  const auto a = sinq::rtn_quantizer<5>{{.group_size = 32}}(m.view());
  const auto b = sinq::rtn{5, {.group_size = 32}}(m.view());
  REQUIRE((a && b));
  CHECK(std::equal(a->codes.begin(), a->codes.end(), b->codes.begin(), b->codes.end()));
  CHECK(a->scale == b->scale);
}

TEST_CASE("the reference's symmetric grid has one zero point and levels on both sides of it") {
  const matrix m = with_outliers(16, 64, 12);
  for_each_width({.group_size = 64, .noz = true}, [&](const auto& quantize) {
    const auto q = quantize(m.view());
    REQUIRE(q);
    const int middle = sinq::max_code(quantize.bits()) / 2;
    const int most = std::max(1, middle - 1);
    CHECK(q->format.has_zero);
    for (std::size_t i = 0; i < m.rows; ++i) {
      CHECK(q->zero[i] == static_cast<float>(middle));
      const auto row = m.view().row(i);
      const float largest = std::fabs(
          *std::max_element(row.begin(), row.end(), [](float a, float b) { return std::fabs(a) < std::fabs(b); }));
      CHECK(q->scale[i] == Approx(largest / static_cast<float>(most)).epsilon(1e-6));
      for (std::size_t j = 0; j < m.cols; ++j) {
        const int code = q->code_matrix()(i, j);
        CHECK(std::abs(code - middle) <= most);
        CHECK(std::fabs(value_at(*q, i, j) - m(i, j)) <= 0.50001f * q->scale[i]);
      }
    }
  });
  const auto zeros = sinq::rtn_quantizer<4>{{.group_size = 8, .noz = true}}(matrix{1, 8}.view());
  REQUIRE(zeros);
  CHECK(value_at(*zeros, 0, 3) == 0.0f);
}

TEST_CASE("rtn refuses an empty matrix and empty groups") {
  const auto empty = sinq::rtn_quantizer<4>{}(sinq::matrix_view<const float>{});
  REQUIRE_FALSE(empty);
  CHECK(empty.error().code == sinq::errc::empty_matrix);
  const auto no_group = sinq::rtn_quantizer<4>{{.group_size = 0}}(gaussian(2, 2, 1).view());
  REQUIRE_FALSE(no_group);
  CHECK(no_group.error().code == sinq::errc::invalid_argument);
}
