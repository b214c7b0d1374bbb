#include "kernels/product_check.hpp"

#include <algorithm>
#include <limits>

using namespace sinq_test;

TEST_CASE("matmul agrees with its definition on long rows and many tokens") {
  product_check check{4096, {1, 512}};
  check({.rows = 17, .cols = 4096, .bits = 3, .group_size = 128, .has_col_scale = true});
}

TEST_CASE("matmul takes every storage of scales, zero points and t") {
  for (const auto& [rows, cols] : {std::pair{19u, 66u}, {32u, 40u}, {1u, 1u}}) {
    product_check check{cols, {3, 17, 130}};
    for (const sinq::matrix_format& f : every_storage(rows, cols)) {
      check(f);
      sinq::matrix_format wide = f;
      wide.group_size = 32;
      if (f.tile_rows != 0) wide.tile_rows = 18;
      check(wide);
    }
  }
}

TEST_CASE("the last tokens are filled up to one strip where that takes few more") {
  const auto filled = [](std::size_t most_more) {
    std::vector<std::size_t> all;
    for (std::size_t tokens = 0; tokens <= 16; ++tokens) all.push_back(sinq::detail::filled_up(tokens, most_more));
    return all;
  };
  using counts = std::vector<std::size_t>;
  CHECK(filled(0) == counts{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16});
  CHECK(filled(1) == counts{0, 1, 2, 4, 4, 5, 6, 8, 8, 9, 10, 12, 12, 13, 14, 16, 16});
  CHECK(filled(3) == counts{0, 1, 2, 4, 4, 8, 8, 8, 8, 9, 10, 12, 12, 16, 16, 16, 16});
}

TEST_CASE("codes of up to 5 bits meet bytes if nothing else is said, wider ones floats") {
  const matrix x = tokens(3, 128);
  for (const int bits : sinq::supported_bits) {
    INFO(bits << " bits");
    const sinq::panel_matrix w = panels(random_quantized({.rows = 16, .cols = 128, .bits = bits}, 3));
    const sinq::precision expected = bits <= 5 ? sinq::precision::int8 : sinq::precision::exact;
    const sinq::precision other = bits <= 5 ? sinq::precision::exact : sinq::precision::int8;
    CHECK(multiplied(w, x, {}).values == multiplied(w, x, {.precision = expected}).values);
    CHECK(multiplied(w, x, {}).values != multiplied(w, x, {.precision = other}).values);
  }
}

namespace {

/// Products of a weight by one of the definitions, and how far from it they may be.
struct definition {
  sinq::precision precision;
  std::size_t tokens;
  products expected;
  double tolerance;
};
/// All that hold on an instruction set.
std::vector<definition> definitions(const sinq::quantized_matrix& q, const matrix& x, sinq::isa isa) {
  const product_oracle oracle{q, x};
  const bool has_tiles = isa == sinq::isa::amx; // which take many tokens as bf16, a few as bytes
  std::vector<definition> all;
  all.push_back({sinq::precision::exact, x.rows, oracle.exact(), exact_tolerance(q.format)});
  all.push_back({sinq::precision::int8, has_tiles ? 16 : x.rows, oracle.bytes(), bytes_tolerance(q.format)});
  if (has_tiles) all.push_back({sinq::precision::int8, x.rows, oracle.bf16(), bf16_tolerance(q.format)});
  return all;
}

void swap_codes_of_rows(sinq::quantized_matrix& q, std::size_t a, std::size_t b) {
  std::uint8_t* const codes = q.codes.data();
  std::swap_ranges(codes + a * q.format.cols, codes + (a + 1) * q.format.cols, codes + b * q.format.cols);
}
void swap_tokens(matrix& x, std::size_t a, std::size_t b) {
  for (std::size_t j = 0; j < x.cols; ++j) std::swap(x(a, j), x(b, j));
}

} // namespace

TEST_CASE("one wrong code, scale, zero point, t, row, column or token does not go unseen") {
  const sinq::matrix_format f{.rows = 20, .cols = 199, .has_col_scale = true, .col_scale_type = sinq::dtype::f32};
  const sinq::quantized_matrix q = random_quantized(f, 1);
  const matrix x = tokens(130, f.cols);
  for (const sinq::isa isa : isas_here()) {
    const on_isa here{isa};
    for (const definition& d : definitions(q, x, isa)) {
      INFO(to_string(isa) << ", " << d.tokens << " tokens, int8 " << (d.precision == sinq::precision::int8));
      const auto agrees = [&](const sinq::quantized_matrix& weight, const matrix& activations) {
        const matrix y = multiplied(panels(weight), activations, {.precision = d.precision}, d.tokens);
        return close_to_products(y, d.expected, d.tolerance).agrees;
      };
      REQUIRE(agrees(q, x));
      const auto seen = [&](auto&& plant) {
        sinq::quantized_matrix wrong = random_quantized(f, 1);
        matrix wrong_x = x;
        plant(wrong, wrong_x);
        return !agrees(wrong, wrong_x);
      };
      CHECK(seen([](auto& wrong, auto&) { wrong.codes[300] ^= 1; }));
      CHECK(seen([](auto& wrong, auto&) { wrong.scale[41] *= 1.001f; }));
      CHECK(seen([](auto& wrong, auto&) { wrong.zero[7] += 0.0625f; }));
      CHECK(seen([](auto& wrong, auto&) { wrong.col_scale[150] *= 1.01f; }));
      CHECK(seen([](auto& wrong, auto&) { swap_codes_of_rows(wrong, 3, 4); }));
      CHECK(seen([](auto&, auto& wrong) { swap_tokens(wrong, 6, 7); }));
      CHECK(seen([](auto&, auto& wrong) { wrong(5, wrong.cols - 1) = 0; }));
    }
  }
}

TEST_CASE("products of another shape, and those that are no numbers, are never close") {
  const sinq::quantized_matrix q = random_quantized({.rows = 20, .cols = 64}, 1);
  const matrix x = tokens(3, 64);
  const products expected = product_oracle{q, x}.exact();
  matrix y = multiplied(panels(q), x);
  CHECK(close_to_products(y, expected, 1));
  CHECK_FALSE(close_to_products(matrix{3, 19}, expected, 1));
  CHECK_FALSE(close_to_products(matrix{4, 20}, expected, 1));
  CHECK_FALSE(close_to_products(matrix{0, 20}, expected, 1));
  CHECK(close_to_each_other(y, y, expected, 0));
  CHECK_FALSE(close_to_each_other(matrix{3, 19}, y, expected, 1));
  matrix other = y;
  other(2, 19) += 1e-3f;
  CHECK_FALSE(close_to_each_other(other, y, expected, 1e-6));
  y(1, 3) = std::numeric_limits<float>::quiet_NaN();
  CHECK_FALSE(close_to_products(y, expected, 1));
  CHECK_FALSE(close_to_each_other(y, y, expected, 1));
}

TEST_CASE("matmul takes activations of 16 bits, and a bias") {
  const sinq::matrix_format f{.rows = 18, .cols = 128};
  const sinq::quantized_matrix q = random_quantized(f, 2);
  const sinq::panel_matrix w = panels(q);
  const matrix x = tokens(3, f.cols);
  std::vector<float> bias(f.rows);
  for (std::size_t i = 0; i < bias.size(); ++i) bias[i] = static_cast<float>(i) - 4;
  const auto check = [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> narrow(x.values.size());
    matrix back = x;
    for (std::size_t n = 0; n < narrow.size(); ++n) {
      narrow[n] = static_cast<T>(x.values[n]);
      back.values[n] = static_cast<float>(narrow[n]);
    }
    matrix y{x.rows, f.rows};
    REQUIRE(sinq::matmul(w, sinq::matrix_view<const T>{narrow.data(), x.rows, x.cols}, y.view(),
                         {.precision = sinq::precision::exact, .bias = bias}));
    CHECK(close_to_products(y, with_bias(product_oracle{q, back}.exact(), bias), exact_tolerance(f)));
  };
  check(sinq::float16{});
  check(sinq::bfloat16{});
  check(float{});
}

TEST_CASE("matmul gives the same for any number of threads") {
  sinq::serial_executor one;
  sinq::thread_pool two{2}, three{3};
  const matrix x = tokens(40, 1024); // enough to be shared: more than a million products for a pair of panels
  for (const int bits : sinq::supported_bits) {
    const sinq::panel_matrix w = panels(random_quantized({.rows = 200, .cols = 1024, .bits = bits}, 3));
    for (const sinq::isa isa : isas_here())
      for (const sinq::precision precision : {sinq::precision::exact, sinq::precision::int8}) {
        INFO(to_string(isa) << ", " << bits << " bits, int8 " << (precision == sinq::precision::int8));
        const on_isa here{isa};
        const matrix expected = multiplied(w, x, {.precision = precision, .threads = &one});
        CHECK(multiplied(w, x, {.precision = precision, .threads = &two}).values == expected.values);
        CHECK(multiplied(w, x, {.precision = precision, .threads = &three}).values == expected.values);
      }
  }
}

TEST_CASE("a value that is not finite stays with its token") {
  const sinq::panel_matrix w = panels(random_quantized({.rows = 40, .cols = 256}, 4));
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    for (const sinq::precision precision : {sinq::precision::exact, sinq::precision::int8}) {
      matrix x = tokens(10, 256);
      const matrix before = multiplied(w, x, {.precision = precision});
      x(3, 100) = bad;
      const matrix after = multiplied(w, x, {.precision = precision});
      for (std::size_t m = 0; m < x.rows; ++m)
        for (std::size_t i = 0; i < 40; ++i) {
          if (m == 3)
            CHECK_FALSE(std::isfinite(after(m, i)));
          else
            CHECK(after(m, i) == before(m, i));
        }
    }
}

TEST_CASE("matmul names shapes that do not fit") {
  const sinq::panel_matrix w = panels(random_quantized({.rows = 4, .cols = 8, .group_size = 8}, 4));
  matrix x{2, 8}, y{2, 4}, narrow{2, 7}, short_y{1, 4}, wide_y{2, 5};
  const auto message = [&](const matrix& from, matrix& to, std::span<const float> bias = {}) {
    const auto done = sinq::matmul(w, from.view(), to.view(), {.bias = bias});
    REQUIRE_FALSE(done);
    CHECK(done.error().code == sinq::errc::invalid_argument);
    return done.error().message;
  };
  CHECK(message(narrow, y) == "matmul: x is 2 x 7 and y 2 x 4, expected M x 8 and M x 4");
  CHECK(message(x, short_y) == "matmul: x is 2 x 8 and y 1 x 4, expected M x 8 and M x 4");
  CHECK(message(x, wide_y) == "matmul: x is 2 x 8 and y 2 x 5, expected M x 8 and M x 4");
  const std::vector<float> bias(3);
  CHECK(message(x, y, bias) == "matmul: bias has 3 entries, expected 4");
  matrix none{0, 8}, empty{0, 4};
  CHECK(sinq::matmul(w, none.view(), empty.view()));
}
