#include "kernels/emulated_tiles.hpp"
#include "kernels/products.hpp"
#include "support/catch.hpp"
#include "support/each_isa.hpp"
#include "support/random_quantized.hpp"

#if SINQ_AMX

using namespace sinq_test;

namespace {

/// What the kernel of AMX gives on tiles that are emulated.
matrix multiplied_in_tiles(const sinq::panel_matrix& w, const matrix& x, const sinq::matmul_options& options = {}) {
  namespace amx = sinq::detail::amx;
  matrix y{x.rows, w.format.rows};
  const sinq::weight_view view{x.view()};
  const sinq::detail::kernel kernel = sinq::detail::with_bits(w.format.bits, [](auto bits) {
    return sinq::detail::kernel{amx::multiply<emulated_tiles, bits()>, sinq::detail::activation_form::tiles,
                                amx::most_panels, amx::most_tokens};
  });
  REQUIRE(sinq::detail::panel_matmul{w, view, y.view(), options, kernel}());
  CHECK_FALSE(emulated_tiles::configured());
  return y;
}

} // namespace

TEST_CASE("the kernel of AMX agrees with double, on emulated tiles") {
  if (!is_here(sinq::isa::avx512)) SINQ_SKIP("this processor has no AVX-512, which the kernel of AMX is built on");
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
          const matrix x = tokens(count, cols);
          CHECK(close_to_products(multiplied_in_tiles(panels(q), x), multiply(q, x), bf16_tolerance));
        }
      }
}

TEST_CASE("the kernel of AMX takes rows and tokens in parts, on emulated tiles") {
  if (!is_here(sinq::isa::avx512)) SINQ_SKIP("this processor has no AVX-512, which the kernel of AMX is built on");
  const on_isa vectors{sinq::isa::avx512};
  const sinq::quantized_matrix q =
      random_quantized({.rows = 40, .cols = 8300, .tile_rows = 20, .has_col_scale = true}, 1);
  const sinq::panel_matrix w = panels(q);
  const matrix long_rows = tokens(20, 8300);
  CHECK(close_to_products(multiplied_in_tiles(w, long_rows), multiply(q, long_rows), bf16_tolerance));
  const sinq::quantized_matrix few = random_quantized({.rows = 18, .cols = 64}, 1);
  const matrix many = tokens(530, 64);
  std::vector<float> bias(18, 1.0f);
  products expected = multiply(few, many);
  for (double& y : expected.y) y += 1;
  sinq::thread_pool three{3};
  CHECK(close_to_products(multiplied_in_tiles(panels(few), many, {.bias = bias, .threads = &three}), expected,
                          bf16_tolerance));
}

TEST_CASE("one wrong code in the kernel of AMX does not go unseen") {
  if (!is_here(sinq::isa::avx512)) SINQ_SKIP("this processor has no AVX-512, which the kernel of AMX is built on");
  const on_isa vectors{sinq::isa::avx512};
  const sinq::quantized_matrix q = random_quantized({.rows = 20, .cols = 64}, 1);
  sinq::quantized_matrix wrong = random_quantized({.rows = 20, .cols = 64}, 1);
  wrong.codes[300] ^= 8;
  const matrix x = tokens(17, 64);
  REQUIRE(close_to_products(multiplied_in_tiles(panels(q), x), multiply(q, x), bf16_tolerance));
  CHECK_FALSE(close_to_products(multiplied_in_tiles(panels(wrong), x), multiply(q, x), bf16_tolerance));
}

#endif
