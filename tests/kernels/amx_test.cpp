#include "kernels/emulated_tiles.hpp"
#include "kernels/product_check.hpp"

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

bool is_left_out() {
  return !is_here(sinq::isa::avx512);
}
constexpr const char* why_left_out = "this processor has no AVX-512, which the kernels of AMX are built on";

void check_on_tiles(const sinq::quantized_matrix& q, const matrix& x, const sinq::matmul_options& options = {}) {
  const sinq::panel_matrix w = panels(q);
  const product_oracle oracle{q, x};
  const std::vector<float> none(q.format.rows);
  const std::span<const float> bias = options.bias.empty() ? none : options.bias;
  CHECK(close_to_products(multiplied_in_bf16(w, x, options), with_bias(oracle.bf16(), bias), bf16_tolerance(q.format)));
  if (byte_step(q.format) == 64)
    CHECK(close_to_products(multiplied_in_bytes(w, x, options), with_bias(oracle.bytes(), bias),
                            bytes_tolerance(q.format)));
}

} // namespace

TEST_CASE("the kernels of AMX agree with their definitions, on emulated tiles") {
  if (is_left_out()) SINQ_SKIP(why_left_out);
  const on_isa vectors{sinq::isa::avx512};
  for (const std::size_t group_size : {32u, 64u, 128u})
    for (const int bits : sinq::supported_bits)
      for (const sinq::grid grid : {sinq::grid::uniform, sinq::grid::custom}) {
        if (grid == sinq::grid::custom && bits > 4) continue; // these are multiplied exactly
        for (const auto& [rows, cols, count] : {std::tuple{19u, 200u, 17u}, {300u, 64u, 70u}, {129u, 33u, 32u}}) {
          const sinq::matrix_format f{
              .rows = rows, .cols = cols, .bits = bits, .group_size = group_size, .grid = grid, .has_col_scale = true};
          INFO(described(f) << ", tokens " << count);
          check_on_tiles(random_quantized(f, rows), tokens(count, cols));
        }
      }
}

TEST_CASE("the kernels of AMX take every storage of scales and zero points, on emulated tiles") {
  if (is_left_out()) SINQ_SKIP(why_left_out);
  const on_isa vectors{sinq::isa::avx512};
  for (sinq::matrix_format f : every_storage(49, 66)) {
    f.group_size = 32;
    if (f.tile_rows != 0) f.tile_rows = 18;
    if (byte_step(f) == 0) continue; // these are multiplied exactly
    INFO(described(f));
    check_on_tiles(random_quantized(f, 3), tokens(9, 66));
  }
}

TEST_CASE("the kernels of AMX take rows and tokens in parts, on emulated tiles") {
  if (is_left_out()) SINQ_SKIP(why_left_out);
  const on_isa vectors{sinq::isa::avx512};
  const sinq::quantized_matrix wide =
      random_quantized({.rows = 40, .cols = 8300, .tile_rows = 20, .has_col_scale = true}, 1);
  check_on_tiles(wide, tokens(20, 8300));
  check_on_tiles(wide, tokens(36, 8300));
  check_on_tiles(random_quantized({.rows = 70, .cols = 1100}, 1), tokens(140, 1100));
  check_on_tiles(random_quantized({.rows = 530, .cols = 600}, 1), tokens(40, 600));
  const std::vector<float> bias(18, 1.0f);
  sinq::thread_pool three{3};
  check_on_tiles(random_quantized({.rows = 18, .cols = 64}, 1), tokens(530, 64), {.bias = bias, .threads = &three});
}

TEST_CASE("one wrong code in the kernels of AMX does not go unseen") {
  if (is_left_out()) SINQ_SKIP(why_left_out);
  const on_isa vectors{sinq::isa::avx512};
  const sinq::matrix_format f{.rows = 20, .cols = 64};
  const sinq::quantized_matrix q = random_quantized(f, 1);
  sinq::quantized_matrix wrong = random_quantized(f, 1);
  wrong.codes[300] ^= 1;
  const matrix x = tokens(17, 64);
  const product_oracle oracle{q, x};
  CHECK(close_to_products(multiplied_in_bf16(panels(q), x), oracle.bf16(), bf16_tolerance(f)));
  CHECK_FALSE(close_to_products(multiplied_in_bf16(panels(wrong), x), oracle.bf16(), bf16_tolerance(f)));
  CHECK(close_to_products(multiplied_in_bytes(panels(q), x), oracle.bytes(), bytes_tolerance(f)));
  CHECK_FALSE(close_to_products(multiplied_in_bytes(panels(wrong), x), oracle.bytes(), bytes_tolerance(f)));
}

#endif
