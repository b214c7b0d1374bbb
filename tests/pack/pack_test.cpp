#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/methods.hpp"
#include "support/packed.hpp"
#include "support/random_quantized.hpp"

#include <sinq/metrics.hpp>
#include <sinq/pack/pack.hpp>
#include <sinq/quant/quantize.hpp>

#include <cmath>
#include <limits>

using namespace sinq_test;

namespace {

sinq::packed_matrix packed(const matrix& m, const sinq::quantize_options& options = {}) {
  const auto q = sinq::quantize(m.view(), options);
  REQUIRE(q);
  auto p = sinq::pack(*q);
  if (!p) FAIL(p.error().message);
  REQUIRE(sinq::check_packed(*p));
  return *std::move(p);
}

/// A hand-made 4-bit matrix of 3 rows and 2 groups of 4.
sinq::quantized_matrix small(sinq::aux_dtype aux) {
  auto q = sinq::quantized_matrix::allocate({.rows = 3, .cols = 8, .bits = 4, .group_size = 4, .aux = aux}, "test");
  for (std::size_t n = 0; n < q.codes.size(); ++n) q.codes[n] = static_cast<std::uint8_t>(n % 16);
  std::fill(q.scale.begin(), q.scale.end(), 0.5f);
  std::fill(q.zero.begin(), q.zero.end(), 8.0f);
  return q;
}

} // namespace

TEST_CASE("unpack is the inverse of pack") {
  for (const bool symmetric : {false, true})
    for (const sinq::aux_dtype aux : {sinq::aux_dtype::f16, sinq::aux_dtype::bf16, sinq::aux_dtype::f32})
      for (const int bits : sinq::supported_bits)
        for (const auto& [rows, cols] : ragged_shapes) {
          const auto p = packed(with_outliers(rows, cols, 51),
                                {.bits = bits, .group_size = 32, .aux = aux, .symmetric = symmetric});
          const auto again = sinq::pack(sinq::unpack(p));
          REQUIRE(again);
          CHECK(again->format == p.format);
          CHECK(same_bytes(again->codes, p.codes));
          CHECK(same_bytes(again->scale, p.scale));
          CHECK(same_bytes(again->zero, p.zero));
          CHECK(same_bytes(again->col_scale, p.col_scale));
        }
}

TEST_CASE("every storage comes back from pack, and stands for what the equation says") {
  for (const auto& [rows, cols] : ragged_shapes)
    for (const sinq::matrix_format& format : every_storage(rows, cols)) {
      const sinq::quantized_matrix q = random_quantized(format, cols);
      const auto p = sinq::pack(q);
      if (!p) FAIL(p.error().message);
      REQUIRE(sinq::check_packed(*p));
      CHECK(p->format == format);
      const sinq::quantized_matrix back = sinq::unpack(*p);
      CHECK(std::equal(back.codes.begin(), back.codes.end(), q.codes.begin()));
      CHECK(back.scale == q.scale);
      CHECK(back.zero == q.zero);
      CHECK(back.col_scale == q.col_scale);
      CHECK(back.scale_base == q.scale_base);
      CHECK(back.zero_base == q.zero_base);
      CHECK(back.custom_levels == q.custom_levels);
      const std::vector<float> w = sinq::dequantize(*p);
      matrix expected{rows, cols};
      for (std::size_t i = 0; i < rows; ++i)
        for (std::size_t j = 0; j < cols; ++j)
          expected(i, j) = (q.scale_matrix()(i, j / format.group_size) *
                            (q.levels()[q.code_matrix()(i, j)] - q.zero_at(i, j / format.group_size))) *
                           q.col_scale_at(i, j);
      if (format.rotation != 0)
        for (std::size_t i = 0; i < rows; ++i) sinq::hadamard_rotate(expected.view().row(i), format.rotation);
      REQUIRE(w == expected.values);
    }
}

TEST_CASE("what the quantized auxiliaries cannot hold is an error, and nothing is rounded silently") {
  const auto refused = [](const sinq::quantized_matrix& q, std::string_view says) {
    const auto p = sinq::pack(q);
    REQUIRE_FALSE(p);
    CHECK(p.error().code == sinq::errc::not_representable);
    CHECK(p.error().message.find(says) != std::string::npos);
  };
  sinq::matrix_format format{.rows = 3, .cols = 32, .group_size = 16};
  format.scale_bits = format.zero_bits = 6;
  format.has_col_scale = true;
  format.col_scale_type = sinq::dtype::f8_e4m3;
  sinq::quantized_matrix q = random_quantized(format, 9);
  REQUIRE(sinq::pack(q));
  q.scale[3] += 0.5f * q.scale_base[1];
  refused(q, "scale");
  q = random_quantized(format, 9);
  q.scale[3] = 64 * q.scale_base[1];
  refused(q, "row 1, group 1");
  q = random_quantized(format, 9);
  q.zero[5] = 1e4f;
  refused(q, "zero point");
  q = random_quantized(format, 9);
  q.scale_base[0] = 1.0001f * 0x1p-8f;
  refused(q, "base");
  q = random_quantized(format, 9);
  q.col_scale[7] = 1.01f;
  refused(q, "t of column 7");
}

TEST_CASE("dequantize computes scale (code - zero) t") {
  const auto p = packed(with_outliers(21, 130, 52));
  const auto q = sinq::unpack(p);
  const std::vector<float> w = sinq::dequantize(p);
  for (std::size_t i = 0; i < 21; ++i)
    for (std::size_t j = 0; j < 130; ++j) {
      const float expected =
          (q.scale_matrix()(i, j / 64) * (static_cast<float>(q.code_matrix()(i, j)) - q.zero_at(i, j / 64))) *
          q.col_scale_at(i, j);
      REQUIRE(w[i * 130 + j] == expected);
    }
  matrix part{5, 130};
  sinq::dequantize_rows(p, 7, part.view());
  CHECK(std::equal(part.values.begin(), part.values.end(), w.begin() + 7 * 130));
}

TEST_CASE("nothing that any method makes is stored as infinity or NaN") {
  for (const auto& [rows, cols] : ragged_shapes) {
    const method_runs runs{cols};
    for (const sinq::method_info& method : sinq::method_table)
      for (const named_matrix& kind : every_kind(rows, cols, 53)) {
        INFO(method.name << ", " << kind.name << " " << rows << " x " << cols);
        const auto error = sinq::measure_error(kind.m.view(), packed(kind.m, runs.usual(method)));
        REQUIRE(error);
        CHECK(error->finite);
      }
  }
}

TEST_CASE("nothing stored is infinite or NaN, and every kind stays near, in every storage type") {
  for (const sinq::method method : {sinq::method::rtn, sinq::method::sinq})
    for (const sinq::aux_dtype aux : {sinq::aux_dtype::f16, sinq::aux_dtype::bf16, sinq::aux_dtype::f32})
      for (const bool symmetric : {false, true})
        for (const auto& [rows, cols] : ragged_shapes)
          for (const named_matrix& kind : every_kind(rows, cols, 53)) {
            const auto p = packed(
                kind.m,
                {.method = method, .bits = 8, .aux = aux, .symmetric = symmetric, .refine = sinq::refine_mode::none});
            const auto error = sinq::measure_error(kind.m.view(), p);
            REQUIRE(error);
            INFO(sinq::to_string(method) << ", " << kind.name << " " << rows << " x " << cols);
            CHECK(error->finite);
            // 8 bits: beside one outlier all others may be half a step of 2/255 off, sqrt(64) / 255 = 0.031 in all.
            // Denormals have no precision left.
            if (kind.name != "denormal") CHECK(error->relative_error < 0.04);
          }
}

TEST_CASE("scales outside f16 move into t by powers of two") {
  for (const float magnitude : {1e8f, 1e20f, 1e37f, 1e-6f, 1e-20f, 1e-36f}) {
    const matrix m = gaussian(32, 128, 54, magnitude);
    for (const sinq::method method : {sinq::method::rtn, sinq::method::sinq, sinq::method::sinq_nf4}) {
      const auto p = packed(m, {.method = method});
      INFO(sinq::to_string(method) << ", " << magnitude);
      CHECK(p.format.has_col_scale);
      const auto ordinary = packed(gaussian(32, 128, 54, 1.0), {.method = method});
      const auto error = sinq::measure_error(m.view(), p);
      const auto expected = sinq::measure_error(gaussian(32, 128, 54, 1.0).view(), ordinary);
      CHECK(error->relative_error == Approx(expected->relative_error).epsilon(0.02));
      for (const float scale : sinq::unpack(p).scale) CHECK((scale >= 0x1p-14f && scale <= 0x1p15f));
    }
  }
  CHECK_FALSE(packed(gaussian(8, 64, 55), {.method = sinq::method::rtn}).format.has_col_scale);
}

TEST_CASE("a group far below the largest of its columns moves to the smallest step that f16 has") {
  matrix m = gaussian(4, 64, 56, 1e4);
  for (std::size_t j = 0; j < 64; ++j) m(2, j) = std::ldexp(m(2, j), -50);
  for (const bool symmetric : {false, true}) {
    const auto p = packed(m, {.method = sinq::method::rtn, .symmetric = symmetric});
    const auto q = sinq::unpack(p);
    const float step = q.scale[2] * q.col_scale_at(0, 0);
    CHECK(q.scale[2] == 0x1p-14f);
    const std::vector<float> w = sinq::dequantize(p);
    for (std::size_t j = 0; j < 64; ++j) CHECK(std::fabs(w[2 * 64 + j] - m(2, j)) <= step);
  }
}

TEST_CASE("t that leaves f16 is stored in f32") {
  CHECK(packed(gaussian(32, 64, 57)).format.col_scale_type == sinq::dtype::f16);
  CHECK(packed(gaussian(32, 64, 57), {.aux = sinq::aux_dtype::bf16}).format.col_scale_type == sinq::dtype::bf16);
  CHECK(packed(gaussian(32, 64, 57, 1e20)).format.col_scale_type == sinq::dtype::f32);
}

TEST_CASE("zero points outside the codes and between them are kept") {
  for (const sinq::aux_dtype aux : {sinq::aux_dtype::f16, sinq::aux_dtype::bf16, sinq::aux_dtype::f32}) {
    auto q = small(aux);
    q.zero = {-3.0f, 100.0f, 7.5f, 0.0f, 15.0f, 3.25f};
    const auto p = sinq::pack(q);
    REQUIRE(p);
    CHECK(sinq::unpack(*p).zero == q.zero);
    CHECK(sinq::dequantize(*p)[4] == 0.5f * (4.0f - 100.0f));
  }
}

TEST_CASE("pack refuses what cannot be stored, naming it") {
  const auto refused = [](const sinq::quantized_matrix& q, sinq::errc code, std::string_view says) {
    const auto p = sinq::pack(q);
    REQUIRE_FALSE(p);
    CHECK(p.error().code == code);
    INFO(p.error().message);
    CHECK(p.error().message.find(says) != std::string::npos);
  };
  auto q = small(sinq::aux_dtype::f16);
  q.zero[3] = 3001.0f;
  refused(q, sinq::errc::not_representable, "3001 of row 1, group 1");
  q.zero[3] = 1e6f;
  refused(q, sinq::errc::not_representable, "1000000 of row 1, group 1");
  q = small(sinq::aux_dtype::f16);
  q.scale[4] = std::numeric_limits<float>::quiet_NaN();
  refused(q, sinq::errc::non_finite, "row 2, group 0");
  q = small(sinq::aux_dtype::f16);
  q.codes[9] = 16;
  refused(q, sinq::errc::invalid_argument, "row 1, column 1 is 16");
  q = small(sinq::aux_dtype::f16);
  q.scale.pop_back();
  refused(q, sinq::errc::invalid_argument, "3 x 8");
  q = small(sinq::aux_dtype::f16);
  q.format.bits = 7;
  refused(q, sinq::errc::invalid_argument, "bits is 7");
  q = small(sinq::aux_dtype::f16);
  q.format.has_col_scale = true;
  q.col_scale.assign(8, std::numeric_limits<float>::infinity());
  refused(q, sinq::errc::non_finite, "t of column 0");
}

TEST_CASE("check_packed sees a part of the wrong size") {
  auto p = packed(gaussian(4, 64, 58));
  CHECK(sinq::check_packed(p));
  p.scale = sinq::shared_bytes{sinq::aligned_buffer<sinq::byte>{6}};
  const auto ok = sinq::check_packed(p);
  REQUIRE_FALSE(ok);
  CHECK(ok.error().message == "scale has 6 bytes, expected 8");
}
