#include "kernels/products.hpp"
#include "support/catch.hpp"
#include "support/each_isa.hpp"
#include "support/random_quantized.hpp"

#include <sinq/core/parallel.hpp>

#include <limits>

using namespace sinq_test;

namespace {

/// f32 sums of at most a few thousand terms: each product and sum rounds by 2^-24 of what it holds.
constexpr double tolerance = 1e-6;

/// The steps of bytes that activations are rounded to, in double, by their definition.
std::vector<double> rounded(const std::vector<double>& x, std::size_t step) {
  std::vector<double> out(x.size());
  for (std::size_t begin = 0; begin < x.size(); begin += step) {
    const std::size_t end = std::min(x.size(), begin + step);
    double most = 0;
    for (std::size_t j = begin; j < end; ++j) most = std::max(most, std::fabs(x[j]));
    const double unit = most / 127;
    for (std::size_t j = begin; j < end && most > 0; ++j) out[j] = unit * std::nearbyint(x[j] / unit);
  }
  return out;
}

/// How far bytes may lead from exact products: half a step for each weight, and levels of a codebook that move by half
/// of 1/127 of the largest one.
double int8_bound(const sinq::quantized_matrix& q, std::span<const double> x, std::size_t row, std::size_t step) {
  const sinq::matrix_format& f = q.format;
  double most_level = 0;
  for (const float level : q.levels()) most_level = std::max(most_level, double{std::fabs(level)});
  const double level_error = f.grid == sinq::grid::uniform ? 0.0 : most_level / 254;
  double bound = 0;
  for (std::size_t begin = 0; begin < x.size(); begin += step) {
    const std::size_t end = std::min(x.size(), begin + step);
    double most = 0;
    for (std::size_t j = begin; j < end; ++j) most = std::max(most, std::fabs(x[j]));
    for (std::size_t j = begin; j < end; ++j) {
      const std::size_t g = j / f.group_size;
      const double scale = std::fabs(double{q.scale_matrix()(row, g)});
      const double level = double{q.levels()[q.code_matrix()(row, j)]};
      bound += scale * (std::fabs(level - double{q.zero_at(row, g)}) + level_error) * most / 254;
      bound += scale * level_error * std::fabs(x[j]);
    }
  }
  return bound;
}

std::vector<sinq::matrix_format> all_kinds(std::size_t rows, std::size_t cols) {
  std::vector<sinq::matrix_format> formats;
  for (const std::size_t group_size : {32u, 64u, 128u, 48u})
    for (const int bits : sinq::supported_bits)
      for (const sinq::grid grid : {sinq::grid::uniform, sinq::grid::custom})
        formats.push_back({.rows = rows, .cols = cols, .bits = bits, .group_size = group_size, .grid = grid});
  formats.push_back({.rows = rows, .cols = cols, .bits = 4, .grid = sinq::grid::nf4, .has_zero = false});
  formats.push_back({.rows = rows, .cols = cols, .bits = 3, .grid = sinq::grid::nf3});
  formats.push_back({.rows = rows, .cols = cols, .bits = 4, .group_size = 2 * cols, .has_zero = false});
  return formats;
}

void check_format(const sinq::matrix_format& f, const std::vector<std::size_t>& counts) {
  INFO("bits " << f.bits << " group " << f.group_size << " grid " << int(f.grid) << " " << f.rows << " x " << f.cols);
  const sinq::quantized_matrix q = random_quantized(f, f.rows + f.cols);
  const sinq::panel_matrix w = panels(q);
  const matrix x = tokens(counts.back(), f.cols);
  const products exact = multiply(q, x);
  const std::size_t step = sinq::detail::int8_step(f);
  for (const sinq::isa isa : isas_here()) {
    const on_isa here{isa};
    INFO(to_string(isa));
    for (const std::size_t count : counts) {
      INFO(count << " tokens");
      matrix some{count, f.cols};
      std::copy_n(x.values.begin(), some.values.size(), some.values.begin());
      products expected = exact;
      expected.tokens = count;
      expected.y.resize(count * f.rows);
      expected.terms.resize(count * f.rows);
      CHECK(close_to_products(multiplied(w, some), expected, tolerance));
      const matrix y = multiplied(w, some, {.precision = sinq::precision::int8});
      if (step == 0) {
        CHECK(close_to_products(y, expected, tolerance));
        continue;
      }
      if (isa == sinq::isa::amx && count >= 128) {
        CHECK(close_to_products(y, expected, bf16_tolerance));
        continue;
      }
      for (std::size_t m = 0; m < count; ++m)
        for (std::size_t i = 0; i < f.rows; ++i) {
          const double apart = std::fabs(double{y(m, i)} - expected.y[m * f.rows + i]);
          const double bound =
              int8_bound(q, folded(q, some.view().row(m), i), i, step) + tolerance * expected.terms[m * f.rows + i];
          if (!(apart <= bound)) FAIL_CHECK("token " << m << ", row " << i << ": " << apart << " beyond " << bound);
        }
    }
  }
}

} // namespace

TEST_CASE("matmul agrees with double on every width, grid and group size") {
  for (const auto& [rows, cols] : {std::pair{19u, 200u}, {16u, 64u}, {5u, 33u}, {33u, 384u}, {1u, 1u}})
    for (const sinq::matrix_format& f : all_kinds(rows, cols)) check_format(f, {1, 3, 9, 17});
}

TEST_CASE("matmul agrees with double for every number of tokens") {
  const sinq::matrix_format plain{.rows = 35, .cols = 160, .bits = 4, .group_size = 32, .has_col_scale = true};
  check_format(plain, {1, 2, 3, 4, 5, 8, 15, 16, 17, 64, 65, 130});
}

TEST_CASE("matmul agrees with double on long rows and many tokens") {
  check_format({.rows = 17, .cols = 4096, .bits = 3, .group_size = 128, .has_col_scale = true}, {1, 512});
}

TEST_CASE("matmul takes every storage of scales, zero points and t") {
  for (const auto& [rows, cols] : {std::pair{19u, 66u}, {32u, 40u}})
    for (const sinq::matrix_format& f : every_storage(rows, cols)) {
      check_format(f, {3});
      sinq::matrix_format wide = f;
      wide.group_size = 32;
      if (f.tile_rows != 0) wide.tile_rows = 18;
      check_format(wide, {3});
    }
}

TEST_CASE("bytes are what their definition says, and then multiplied exactly") {
  for (const sinq::isa isa : isas_here()) {
    const on_isa here{isa};
    INFO(to_string(isa));
    for (const std::size_t group_size : {32u, 64u, 128u})
      for (const int bits : sinq::supported_bits) {
        const sinq::matrix_format f{.rows = 21, .cols = 192, .bits = bits, .group_size = group_size};
        const sinq::quantized_matrix q = random_quantized(f, 7);
        const std::size_t step = sinq::detail::int8_step(f);
        // multiples of a power of two with one that is 127 of them, so that no rounding decides
        random_source random{3};
        matrix x{11, f.cols};
        for (std::size_t m = 0; m < x.rows; ++m)
          for (std::size_t j = 0; j < f.cols; ++j)
            x(m, j) = std::ldexp(j % step == 0 ? 127.0f : static_cast<float>(random.index(255)) - 127.0f,
                                 static_cast<int>(m + j / step) - 4);
        const products expected = multiply_folded(
            q, x.rows, [&](std::size_t m, std::size_t i) { return rounded(folded(q, x.view().row(m), i), step); });
        CHECK(close_to_products(multiplied(panels(q), x, {.precision = sinq::precision::int8}), expected, tolerance));
      }
  }
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

TEST_CASE("one wrong code, scale, zero point or t does not go unseen") {
  const sinq::matrix_format f{.rows = 20, .cols = 256, .has_col_scale = true, .col_scale_type = sinq::dtype::f32};
  const sinq::quantized_matrix q = random_quantized(f, 1);
  const matrix x = tokens(2, f.cols);
  REQUIRE(close_to_products(multiplied(panels(q), x), multiply(q, x), tolerance));
  const auto seen = [&](auto&& plant) {
    sinq::quantized_matrix wrong = random_quantized(f, 1);
    plant(wrong);
    return !close_to_products(multiplied(panels(wrong), x), multiply(q, x), tolerance);
  };
  CHECK(seen([](auto& wrong) { wrong.codes[300] ^= 1; }));
  CHECK(seen([](auto& wrong) { wrong.scale[41] *= 1.001f; }));
  CHECK(seen([](auto& wrong) { wrong.zero[7] += 0.0625f; }));
  CHECK(seen([](auto& wrong) { wrong.col_scale[200] *= 1.01f; }));
  CHECK_FALSE(close_to_products(matrix{2, 19}, multiply(q, x), 1));
  matrix nothing = multiplied(panels(q), x);
  nothing(1, 3) = std::numeric_limits<float>::quiet_NaN();
  CHECK_FALSE(close_to_products(nothing, multiply(q, x), 1));
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
    products expected = multiply(q, back);
    for (std::size_t n = 0; n < expected.y.size(); ++n) expected.y[n] += double{bias[n % f.rows]};
    CHECK(close_to_products(y, expected, tolerance));
  };
  check(sinq::float16{});
  check(sinq::bfloat16{});
  check(float{});
}

TEST_CASE("matmul gives the same for any number of threads") {
  const sinq::panel_matrix w = panels(random_quantized({.rows = 200, .cols = 2048, .has_col_scale = true}, 3));
  const matrix x = tokens(70, 2048);
  sinq::serial_executor one;
  sinq::thread_pool three{3};
  for (const sinq::precision precision : {sinq::precision::exact, sinq::precision::int8})
    CHECK(multiplied(w, x, {.precision = precision, .threads = &one}).values ==
          multiplied(w, x, {.precision = precision, .threads = &three}).values);
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
