#include "support/catch.hpp"

#include <sinq/core/format.hpp>

using sinq::matrix_format;

TEST_CASE("every width that can be packed is listed once, in order") {
  for (int bits = -1; bits <= 16; ++bits) {
    const bool expected = bits == 2 || bits == 3 || bits == 4 || bits == 5 || bits == 6 || bits == 8;
    CHECK(sinq::is_supported_bits(bits) == expected);
  }
  STATIC_REQUIRE(sinq::max_code(2) == 3);
  STATIC_REQUIRE(sinq::max_code(5) == 31);
  STATIC_REQUIRE(sinq::max_code(8) == 255);
}

TEST_CASE("groups cover the columns, the last one shorter where they do not divide") {
  struct expectation {
    std::size_t cols, group_size, groups, last;
  };
  for (const auto& [cols, group_size, groups, last] :
       {expectation{1, 64, 1, 1}, expectation{63, 64, 1, 63}, expectation{64, 64, 1, 64}, expectation{65, 64, 2, 1},
        expectation{576, 64, 9, 64}, expectation{100, 32, 4, 4}, expectation{7, 1, 7, 1}, expectation{0, 64, 0, 0}}) {
    CAPTURE(cols, group_size);
    const matrix_format format{.rows = 3, .cols = cols, .group_size = group_size};
    CHECK(format.groups() == groups);
    std::size_t sum = 0;
    for (std::size_t g = 0; g < format.groups(); ++g) {
      CHECK(format.group_cols(g) == (g + 1 < groups ? group_size : last));
      sum += format.group_cols(g);
    }
    CHECK(sum == cols);
  }
}

TEST_CASE("a group may be larger than any matrix") {
  const matrix_format format{.rows = 1, .cols = 5, .group_size = static_cast<std::size_t>(-1)};
  CHECK(format.groups() == 1);
  CHECK(format.group_cols(0) == 5);
}

TEST_CASE("the symmetric zero point is the middle of the grid") {
  CHECK(matrix_format{.bits = 2}.symmetric_zero() == 1.5f);
  CHECK(matrix_format{.bits = 4}.symmetric_zero() == 7.5f);
  CHECK(matrix_format{.bits = 8}.symmetric_zero() == 127.5f);
}

TEST_CASE("auxiliary types name their storage") {
  STATIC_REQUIRE(sinq::storage(sinq::aux_dtype::f16) == sinq::dtype::f16);
  STATIC_REQUIRE(sinq::storage(sinq::aux_dtype::bf16) == sinq::dtype::bf16);
  STATIC_REQUIRE(sinq::storage(sinq::aux_dtype::f32) == sinq::dtype::f32);
}

TEST_CASE("formats compare by value") {
  const matrix_format a{.rows = 2, .cols = 128};
  matrix_format b = a;
  CHECK(a == b);
  b.has_col_scale = true;
  CHECK(a != b);
}
