#include "support/catch.hpp"
#include "support/random_matrices.hpp"

#include <sinq/pack/layout.hpp>

#include <vector>

namespace {

template <class Layout>
void check_round_trip(Layout layout, std::size_t cols) {
  sinq_test::random_source random{cols};
  std::vector<std::uint8_t> codes(cols), back(cols);
  for (auto& code : codes) code = static_cast<std::uint8_t>(random.index(std::size_t{1} << layout.bits));
  std::vector<sinq::byte> row(layout.row_bytes(cols), sinq::byte{0xff});
  layout.pack_row(codes, row);
  layout.unpack_row(row, back);
  CHECK(codes == back);
  for (std::size_t j = 0; j < cols; ++j) {
    REQUIRE(layout.code(row, j) == codes[j]);
    for (std::size_t k = 0; k < layout.bits; ++k) { // the picture: bit k of code j is bit j b + k of the row
      const std::size_t bit = j * layout.bits + k;
      REQUIRE(((static_cast<unsigned>(row[bit / 8]) >> (bit % 8)) & 1u) == ((codes[j] >> k) & 1u));
    }
  }
  for (std::size_t bit = cols * layout.bits; bit < row.size() * 8; ++bit)
    REQUIRE(((static_cast<unsigned>(row[bit / 8]) >> (bit % 8)) & 1u) == 0u);
}

} // namespace

TEST_CASE("codes come back from every width and length, and lie where the picture says") {
  for (const int bits : sinq::supported_bits)
    for (std::size_t cols = 1; cols <= 200; ++cols)
      sinq::with_layout(bits, [&](auto layout) { check_round_trip(layout, cols); });
}

TEST_CASE("rows take the next multiple of 8 bytes") {
  static_assert(sinq::packed_layout<4>::row_bytes(64) == 32);
  static_assert(sinq::packed_layout<3>::row_bytes(64) == 24);
  static_assert(sinq::packed_layout<3>::row_bytes(65) == 32);
  static_assert(sinq::packed_layout<5>::row_bytes(1) == 8);
  static_assert(sinq::packed_layout<8>::packed_bytes(3, 9) == 48);
  for (const int bits : sinq::supported_bits)
    for (std::size_t cols = 0; cols < 300; ++cols)
      sinq::with_layout(bits, [&](auto layout) {
        CHECK(layout.row_bytes(cols) == (cols * static_cast<std::size_t>(bits) + 63) / 64 * 8);
      });
  static_assert(sinq::packed_layout<8>::row_bytes(std::size_t{1} << 60) == std::size_t{1} << 60);
}

TEST_CASE("sizes count codes, scales, zero points, t and padding") {
  sinq::matrix_format f{.rows = 10, .cols = 100, .bits = 3, .group_size = 64};
  CHECK(sinq::packed_bytes(f).codes == 10 * 40);
  CHECK(sinq::packed_bytes(f).scale == 10 * 2 * 2);
  CHECK(sinq::packed_bytes(f).zero == 10 * 2 * 2);
  CHECK(sinq::packed_bytes(f).col_scale == 0);
  CHECK(sinq::bits_per_weight(f) == Approx(8.0 * 480 / 1000));
  f.has_col_scale = true;
  f.has_zero = false;
  CHECK(sinq::packed_bytes(f).total() == 400 + 40 + 200);
  f.col_scale_type = sinq::dtype::f32;
  f.aux = sinq::aux_dtype::f32;
  CHECK(sinq::packed_bytes(f).total() == 400 + 80 + 400);
  const sinq::matrix_format small{.rows = 576,
                                  .cols = 576,
                                  .bits = 4,
                                  .group_size = 32,
                                  .scale_bits = 6,
                                  .zero_bits = 6,
                                  .has_col_scale = true,
                                  .col_scale_type = sinq::dtype::f8_e4m3};
  CHECK(sinq::bits_per_weight(small) == Approx(4 + 12.0 / 32 + 32.0 / 576 + 8.0 / 576));
  CHECK(sinq::packed_bytes({.rows = 4, .cols = 8, .bits = 3, .grid = sinq::grid::custom}).levels == 32);
}

TEST_CASE("formats that cannot be are refused") {
  const sinq::matrix_format good{.rows = 10, .cols = 100};
  CHECK(sinq::check_format(good));
  const auto refused = [](const sinq::matrix_format& f, std::string_view says) {
    const auto ok = sinq::check_format(f);
    REQUIRE_FALSE(ok);
    CHECK(ok.error().message.find(says) != std::string::npos);
  };
  refused({.rows = 0, .cols = 5}, "0 x 5");
  refused({.rows = 5, .cols = 0}, "5 x 0");
  refused({.rows = 5, .cols = 5, .bits = 7}, "bits is 7");
  refused({.rows = 5, .cols = 5, .group_size = 0}, "group_size is 0");
  refused({.rows = 5, .cols = 5, .bits = 3, .grid = sinq::grid::nf4}, "4 of nf4");
  refused({.rows = 5, .cols = 12, .rotation = 8}, "12 columns");
  refused({.rows = 5, .cols = 12, .rotation = 3}, "power of two");
  refused({.rows = 5, .cols = 12, .scale_bits = 7}, "7 bits");
  refused({.rows = 5, .cols = 12, .col_scale_type = sinq::dtype::f64}, "F64");
  refused({.rows = std::size_t{1} << 40, .cols = std::size_t{1} << 40}, "2^56");
}
