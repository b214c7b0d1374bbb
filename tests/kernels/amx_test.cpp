#include "kernels/emulated_tiles.hpp"
#include "kernels/products.hpp"
#include "support/catch.hpp"
#include "support/each_isa.hpp"
#include "support/random_quantized.hpp"

#if SINQ_AMX

using namespace sinq_test;

namespace {

matrix multiplied_by(const sinq::detail::kernel& kernel, const sinq::panel_matrix& w, const matrix& x,
                     const sinq::matmul_options& options) {
  matrix y{x.rows, w.format.rows};
  const sinq::weight_view view{x.view()};
  REQUIRE(sinq::detail::panel_matmul{w, view, y.view(), options, kernel}());
  CHECK_FALSE(emulated_tiles::configured());
  return y;
}
/// What the kernel of bf16 gives on tiles that are emulated.
matrix multiplied_in_bf16(const sinq::panel_matrix& w, const matrix& x, const sinq::matmul_options& options = {}) {
  return multiplied_by(sinq::detail::bf16_on_tiles<emulated_tiles>(w.format.bits), w, x, options);
}
/// What that of bytes gives.
matrix multiplied_in_bytes(const sinq::panel_matrix& w, const matrix& x, const sinq::matmul_options& options = {}) {
  return multiplied_by(sinq::detail::bytes_on_tiles<emulated_tiles>(w.format.bits), w, x, options);
}

/// What the kernel of bytes that is written down gives, as other kernels of bytes should but for the rounding of sums.
products multiplied_plainly(const sinq::quantized_matrix& q, const matrix& x,
                            const sinq::matmul_options& options = {}) {
  const on_isa plain{sinq::isa::scalar};
  products expected = multiply(q, x);
  matrix y{x.rows, q.format.rows};
  sinq::matmul_options as_bytes = options;
  as_bytes.precision = sinq::precision::int8;
  REQUIRE(sinq::matmul(panels(q), x.view(), y.view(), as_bytes));
  expected.y.assign(y.values.begin(), y.values.end());
  return expected;
}

bool is_left_out() {
  return !is_here(sinq::isa::avx512);
}
constexpr const char* why_left_out = "this processor has no AVX-512, which the kernels of AMX are built on";

/// Sums of the same whole numbers in another order: f32 rounding of at most a few thousand terms.
constexpr double order_tolerance = 1e-6;

} // namespace

TEST_CASE("the kernels of AMX agree with double and with plain bytes, on emulated tiles") {
  if (is_left_out()) SINQ_SKIP(why_left_out);
  const on_isa vectors{sinq::isa::avx512};
  for (const std::size_t group_size : {32u, 64u, 128u})
    for (const int bits : sinq::supported_bits)
      for (const sinq::grid grid : {sinq::grid::uniform, sinq::grid::custom}) {
        if (grid == sinq::grid::custom && bits > 4) continue; // these are multiplied exactly
        for (const auto& [rows, cols, count] : {std::tuple{19u, 200u, 17u}, {300u, 64u, 70u}, {129u, 33u, 32u}}) {
          INFO("bits " << bits << " group " << group_size << " " << rows << " x " << cols << " tokens " << count);
          const sinq::quantized_matrix q = random_quantized(
              {.rows = rows, .cols = cols, .bits = bits, .group_size = group_size, .grid = grid, .has_col_scale = true},
              rows);
          const sinq::panel_matrix w = panels(q);
          const matrix x = tokens(count, cols);
          CHECK(close_to_products(multiplied_in_bf16(w, x), multiply(q, x), bf16_tolerance));
          CHECK(close_to_products(multiplied_in_bytes(w, x), multiplied_plainly(q, x), order_tolerance));
        }
      }
}

TEST_CASE("the kernels of AMX take every storage of scales and zero points, on emulated tiles") {
  if (is_left_out()) SINQ_SKIP(why_left_out);
  const on_isa vectors{sinq::isa::avx512};
  for (sinq::matrix_format f : every_storage(49, 66)) {
    f.group_size = 32;
    if (f.tile_rows != 0) f.tile_rows = 18;
    if (sinq::detail::int8_step(f) == 0) continue; // these are multiplied exactly
    const sinq::quantized_matrix q = random_quantized(f, 3);
    const matrix x = tokens(9, 66);
    CHECK(close_to_products(multiplied_in_bf16(panels(q), x), multiply(q, x), bf16_tolerance));
    CHECK(close_to_products(multiplied_in_bytes(panels(q), x), multiplied_plainly(q, x), order_tolerance));
  }
}

TEST_CASE("the kernels of AMX take rows and tokens in parts, on emulated tiles") {
  if (is_left_out()) SINQ_SKIP(why_left_out);
  const on_isa vectors{sinq::isa::avx512};
  const sinq::quantized_matrix q =
      random_quantized({.rows = 40, .cols = 8300, .tile_rows = 20, .has_col_scale = true}, 1);
  const sinq::panel_matrix w = panels(q);
  const matrix long_rows = tokens(20, 8300);
  CHECK(close_to_products(multiplied_in_bf16(w, long_rows), multiply(q, long_rows), bf16_tolerance));
  CHECK(close_to_products(multiplied_in_bytes(w, long_rows), multiplied_plainly(q, long_rows), order_tolerance));
  const sinq::quantized_matrix few = random_quantized({.rows = 18, .cols = 64}, 1);
  const matrix many = tokens(530, 64);
  std::vector<float> bias(18, 1.0f);
  products expected = multiply(few, many);
  for (double& y : expected.y) y += 1;
  sinq::thread_pool three{3};
  const sinq::matmul_options options{.bias = bias, .threads = &three};
  CHECK(close_to_products(multiplied_in_bf16(panels(few), many, options), expected, bf16_tolerance));
  CHECK(close_to_products(multiplied_in_bytes(panels(few), many, options), multiplied_plainly(few, many, options),
                          order_tolerance));
}

TEST_CASE("one wrong code in the kernels of AMX does not go unseen") {
  if (is_left_out()) SINQ_SKIP(why_left_out);
  const on_isa vectors{sinq::isa::avx512};
  const sinq::quantized_matrix q = random_quantized({.rows = 20, .cols = 64}, 1);
  sinq::quantized_matrix wrong = random_quantized({.rows = 20, .cols = 64}, 1);
  wrong.codes[300] ^= 8;
  const matrix x = tokens(17, 64);
  REQUIRE(close_to_products(multiplied_in_bf16(panels(q), x), multiply(q, x), bf16_tolerance));
  CHECK_FALSE(close_to_products(multiplied_in_bf16(panels(wrong), x), multiply(q, x), bf16_tolerance));
  const products plain = multiplied_plainly(q, x);
  REQUIRE(close_to_products(multiplied_in_bytes(panels(q), x), plain, order_tolerance));
  CHECK_FALSE(close_to_products(multiplied_in_bytes(panels(wrong), x), plain, order_tolerance));
}

#endif
