#include "cuda/device.hpp"

using namespace sinq_test;
using sinq::cuda::matmul_kernel;

namespace {

/// f32 sums, rounded or cut off; codes beside bfloat16 are multiplied with 128 added to them.
template <class T>
constexpr double f32_tolerance = std::is_same_v<T, __half> ? 1e-6 : 8e-6;

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
  const auto image = value_of(sinq::cuda::to_device_layout(p));
  const std::vector<T> x = random_activations<T>(s.tokens * s.cols, s.tokens);
  const std::vector<float> bias = random_bias(s.rows, s.cols);
  const auto y = multiply_on_device<Out, T>(image, x, bias, {s.tokens, kernel});
  const auto expected = multiply_in_f64<T>(p, image, x, s.tokens, bias, kernel == matmul_kernel::gemv);
  const double relative = std::is_same_v<Out, float> ? 0 : std::is_same_v<Out, __half> ? 0x1p-11 : 0x1p-8;
  CHECK(worst_error<Out>(y, expected, f32_tolerance<T>, relative) <= 1);
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
  check_all<__half>(matmul_kernel::few_tokens, {{37, 257, 5}, {20, 300, 1}, {40, 130, 13}});
  check_all<__nv_bfloat16>(matmul_kernel::few_tokens, {{16, 320, 8}, {21, 64, 27}});
}

TEST_CASE("few tokens on multiply-adds") {
  check_all<__half>(matmul_kernel::gemv, {{37, 257, 1}, {18, 130, 13}});
  check_all<__nv_bfloat16>(matmul_kernel::gemv, {{16, 320, 3}, {21, 64, 8}});
}

TEST_CASE("many tokens on tensor cores") {
  check_all<__half>(matmul_kernel::many_tokens, {{37, 257, 16}});
  check_all<__nv_bfloat16>(matmul_kernel::many_tokens, {{20, 130, 70}});
}

TEST_CASE("t of up to e^10 and large activations overflow nothing") {
  for (const auto& [kernel, tokens] :
       {std::pair{matmul_kernel::few_tokens, 3u}, {matmul_kernel::many_tokens, 20u}, {matmul_kernel::gemv, 2u}}) {
    const sinq::packed_matrix p = random_weight({.rows = 33, .cols = 300}, 7, 10);
    const auto image = value_of(sinq::cuda::to_device_layout(p));
    const auto x = random_activations<__half>(tokens * 300, 1, 12000);
    const auto y = multiply_on_device<float, __half>(image, x, {}, {tokens, kernel, false});
    const auto expected = multiply_in_f64<__half>(p, image, x, tokens, {}, false);
    CHECK(worst_error<float>(y, expected, f32_tolerance<__half>) <= 1);
    // beside f64 that knows nothing of how t is split: x' is rounded by 2^-11 of itself
    double worst = 0;
    const std::vector<float> dense = sinq::dequantize(p);
    for (std::size_t m = 0; m < tokens; ++m)
      for (std::size_t i = 0; i < 33; ++i) {
        double sum = 0, size = 0;
        for (std::size_t j = 0; j < 300; ++j) {
          const double term = double{dense[i * 300 + j]} * as_double(x[m * 300 + j]);
          sum += term;
          size += std::fabs(term);
        }
        worst = std::max(worst, std::fabs(double{y[m * 33 + i]} - sum) / size);
      }
    CHECK(worst <= 0x1p-11);
  }
}

TEST_CASE("outputs are rounded once, bias and all") {
  for (const auto kernel : {matmul_kernel::gemv, matmul_kernel::few_tokens})
    for (const sinq::matrix_format& f : {sinq::matrix_format{}, {.bits = 4, .grid = sinq::grid::nf4}}) {
      check<__half, __half>(f, {37, 300, 4}, kernel);
      check<__nv_bfloat16, __nv_bfloat16>(f, {37, 300, 7}, kernel);
      check<__half, __nv_bfloat16>(f, {37, 300, 7}, kernel);
    }
  check<__half, __half>({}, {70, 300, 33}, matmul_kernel::many_tokens);
  check<__nv_bfloat16, __nv_bfloat16>({}, {70, 300, 80}, matmul_kernel::many_tokens);
}

TEST_CASE("parts of the columns that go to blocks of their own are added in order") {
  const scoped_device device{90, 132}; // more processors than there are tiles
  check<__half>({}, {20, 2100, 3}, matmul_kernel::few_tokens);
  check<__half>({}, {20, 2100, 2}, matmul_kernel::gemv);
  for (const sinq::matrix_format& f : formats()) check<__half>(f, {20, 1100, 17}, matmul_kernel::many_tokens);
}

TEST_CASE("tensor cores that cut sums off instead of rounding them are near enough") {
  const sinq_emulation::scoped_summation cut{sinq_emulation::summation::truncating};
  for (const sinq::matrix_format& f : formats()) {
    check<__half>(f, {37, 700, 8}, matmul_kernel::few_tokens);
    check<__nv_bfloat16>(f, {37, 700, 18}, matmul_kernel::many_tokens);
  }
}

TEST_CASE("results are the same bits in whatever order threads and blocks run") {
  for (const auto& [kernel, s] : {std::pair{matmul_kernel::few_tokens, shape{70, 400, 12}},
                                  {matmul_kernel::many_tokens, shape{140, 400, 66}},
                                  {matmul_kernel::gemv, shape{40, 400, 5}}})
    for (const sinq::matrix_format& f : {sinq::matrix_format{}, {.bits = 4, .grid = sinq::grid::nf4}}) {
      std::vector<std::vector<float>> results;
      for (const auto& schedule : sinq_emulation::schedules()) {
        const sinq_emulation::scoped_schedule scope{schedule};
        results.push_back(check<__half>(f, s, kernel));
      }
      for (const std::vector<float>& y : results) CHECK(y == results[0]);
    }
}

TEST_CASE("every call of CUDA's runtime is checked") {
  namespace cuda = sinq::cuda;
  sinq_emulation::device_state& device = sinq_emulation::device();
  const auto image = value_of(cuda::to_device_layout(random_weight({.rows = 20, .cols = 300}, 1)));
  const auto x = random_activations<__half>(3 * 300, 1);
  const auto all = [&]() -> sinq::result<void> {
    auto on = cuda::stream::make();
    if (!on) return on.error();
    auto work = cuda::workspace::make();
    if (!work) return work.error();
    const auto w = cuda::device_matrix::upload(image, *on);
    if (!w) return w.error();
    const auto from = cuda::device_buffer<__half>::copy_of(x, *on);
    if (!from) return from.error();
    auto y = cuda::device_buffer<float>::make(3 * 20);
    if (!y) return y.error();
    if (auto ok = cuda::matmul(*w, cuda::device_view<const __half>{from->data(), 3, 300},
                               cuda::device_view<float>{y->data(), 3, 20}, *work, *on);
        !ok)
      return ok;
    const auto back = w->download(*on);
    if (!back) return back.error();
    return on->synchronize();
  };
  int failures = 0;
  for (bool failed = true; failed && failures < 200; failures += failed ? 1 : 0) {
    device.calls_until_failure = failures;
    const auto done = all();
    failed = !done;
    if (failed) CHECK(done.error().code == sinq::errc::device);
    // what is given back when objects die has nobody to tell: it ends the row
    if (device.calls_until_failure) device.calls_until_failure.reset();
    CHECK(device.streams.empty());
    static_cast<void>(cudaGetLastError());
  }
  CHECK(failures > 20);
}

TEST_CASE("from some number of tokens on, the caller's own GEMM gets the weights in floats") {
  namespace cuda = sinq::cuda;
  const sinq::packed_matrix p = random_weight({.rows = 20, .cols = 100}, 1);
  const auto w = value_of(cuda::device_matrix::upload(value_of(cuda::to_device_layout(p))));
  const auto x = value_of(cuda::device_buffer<__half>::copy_of(random_activations<__half>(9 * 100, 1)));
  auto y = value_of(cuda::device_buffer<float>::make(9 * 20));
  auto work = value_of(cuda::workspace::make());
  int calls = 0;
  cuda::matmul_options<__half, float> options{.gemm_tokens = 9};
  options.gemm = [&](const cuda::dense_product<__half, float>& product) -> sinq::result<void> {
    ++calls;
    const std::vector<float> expected = sinq::dequantize(p);
    for (std::size_t i = 0; i < 20; ++i)
      for (std::size_t j = 0; j < 100; ++j)
        CHECK(as_double(product.w.data[i * product.w.stride + j]) == as_held<__half>(expected[i * 100 + j]));
    CHECK(product.x.data == x.data());
    CHECK(product.y.data == y.data());
    return sinq::make_error(sinq::errc::device, "of the caller");
  };
  const auto multiply = [&](std::size_t tokens) {
    return cuda::matmul(w, cuda::device_view<const __half>{x.data(), tokens, 100},
                        cuda::device_view<float>{y.data(), tokens, 20}, work, options);
  };
  require_ok(multiply(8));
  CHECK(calls == 0);
  const auto done = multiply(9);
  CHECK(calls == 1);
  REQUIRE(!done);
  CHECK(done.error().message == "of the caller");
}

TEST_CASE("what cannot be multiplied is an error") {
  namespace cuda = sinq::cuda;
  const auto w = value_of(
      cuda::device_matrix::upload(value_of(cuda::to_device_layout(random_weight({.rows = 20, .cols = 100}, 1)))));
  auto work = value_of(cuda::workspace::make());
  const auto error_of = [&](std::size_t tokens, std::size_t cols, matmul_kernel kernel) {
    const auto done = cuda::matmul(w, cuda::device_view<const __half>{nullptr, tokens, cols},
                                   cuda::device_view<__half>{nullptr, tokens, 20}, work,
                                   cuda::matmul_options<__half>{.kernel = kernel});
    return done ? std::string{"none"} : done.error().message;
  };
  CHECK(error_of(1, 99, matmul_kernel::automatic) ==
        "cuda::matmul: x is 1 x 99 and y 1 x 20, expected M x 100 and M x 20");
  CHECK(error_of(0, 100, matmul_kernel::automatic) == "none");
  CHECK(error_of(65536, 100, matmul_kernel::automatic) == "cuda::matmul: 65536 tokens, expected at most 65535");
  CHECK(error_of(33, 100, matmul_kernel::few_tokens) == "cuda::matmul: 33 tokens, the kernel takes 32");
  CHECK(error_of(1, 100, matmul_kernel::dense) == "cuda::matmul: matmul_kernel::dense without a gemm");
  const scoped_device old{75, 4};
  work = value_of(cuda::workspace::make());
  CHECK(error_of(1, 100, matmul_kernel::few_tokens) == "cuda::matmul: sm_75, the kernel needs sm_80");
}

TEST_CASE("devices without tensor cores for it multiply all the same") {
  const scoped_device old{75, 4};
  for (const sinq::matrix_format& f : formats())
    for (const std::size_t tokens : {1u, 6u, 19u}) {
      check<__half>(f, {37, 300, tokens}, matmul_kernel::automatic);
      if (f.grid == sinq::grid::uniform) check<__nv_bfloat16>(f, {37, 300, tokens}, matmul_kernel::automatic);
    }
}

TEST_CASE("the kernel is chosen by the number of tokens") {
  const scoped_device device{86, 84};
  for (const std::size_t tokens : {1u, 8u, 12u, 32u, 33u})
    check<__half>({}, {37, 300, tokens}, matmul_kernel::automatic);
}
