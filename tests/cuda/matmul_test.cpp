#include "cuda/device.hpp"

using namespace sinq_test;
using sinq::cuda::matmul_kernel;

namespace {

/// f32 sums, rounded or cut off.
constexpr double f32_tolerance = 1e-6;

struct shape {
  std::size_t rows, cols, tokens;
};

std::vector<float> random_bias(std::size_t rows, std::uint64_t seed) {
  random_source random{seed};
  std::vector<float> bias(rows);
  for (float& b : bias) b = static_cast<float>(random.normal());
  return bias;
}

/// Multiplies by a random weight and compares with f64. @return y
template <class T, class Out = float>
std::vector<Out> check(sinq::matrix_format format, const shape& s, matmul_kernel kernel, double reach = 1) {
  format.rows = s.rows;
  format.cols = s.cols;
  CAPTURE(format.bits, int(format.grid), format.group_size, s.rows, s.cols, s.tokens, sizeof(Out), int(kernel));
  const sinq::packed_matrix p = random_weight(format, s.rows + s.cols, reach);
  const auto image = must(sinq::cuda::to_device_layout(p));
  const std::vector<T> x = random_activations<T>(s.tokens * s.cols, s.tokens);
  const std::vector<float> bias = random_bias(s.rows, s.cols);
  const auto y = multiply_on_device<Out, T>(image, x, bias, {s.tokens, kernel});
  const auto expected = multiply_in_f64<T>(p, image, x, s.tokens, bias, kernel == matmul_kernel::gemv);
  const double relative = std::is_same_v<Out, float> ? 0 : std::is_same_v<Out, __half> ? 0x1p-11 : 0x1p-8;
  CHECK(worst_error<Out>(y, expected, f32_tolerance, relative) <= 1);
  return y;
}

/// The formats that the device has, 64 columns a group.
const std::vector<sinq::matrix_format>& formats() {
  static const std::vector<sinq::matrix_format> all{
      {.bits = 2}, {.bits = 3}, {.bits = 4}, {.bits = 8}, {.bits = 4, .grid = sinq::grid::nf4}};
  return all;
}

/// Rows, columns and tokens that fill nothing up, for all formats and sizes of groups.
template <class T, class Out = float>
void check_all(matmul_kernel kernel, const std::vector<shape>& shapes) {
  for (sinq::matrix_format f : formats())
    for (const std::size_t group_size : {32u, 64u, 128u})
      for (const shape& s : shapes) {
        f.group_size = group_size;
        check<T, Out>(f, s, kernel);
      }
}

} // namespace

TEST_CASE("few tokens on tensor cores") {
  check_all<__half>(matmul_kernel::few_tokens, {{37, 576, 5}, {40, 257, 1}, {160, 130, 8}});
  check_all<__nv_bfloat16>(matmul_kernel::few_tokens, {{16, 1300, 8}, {21, 64, 3}});
}

TEST_CASE("few tokens on multiply-adds") {
  check_all<__half>(matmul_kernel::gemv, {{37, 576, 1}, {18, 257, 5}, {16, 130, 19}});
  check_all<__nv_bfloat16>(matmul_kernel::gemv, {{16, 1300, 3}, {21, 64, 8}});
}

TEST_CASE("many tokens on tensor cores") {
  check_all<__half>(matmul_kernel::many_tokens, {{37, 576, 16}, {130, 257, 70}});
  check_all<__nv_bfloat16>(matmul_kernel::many_tokens, {{20, 700, 27}, {33, 130, 9}});
}
