#pragma once

/// The shortest test of multiplication that catches every fault of faults.txt. Compiled for one type at a time.

#include "prelude.hpp"

#include "cuda/device.hpp"

namespace sinq_test {

template <class T, class Out>
std::vector<Out> multiply(const sinq::matrix_format& format, const product_call& call) {
  const sinq::packed_matrix p = random_weight(format, format.cols, 3);
  const auto image = value_of(sinq::cuda::to_device_layout(p));
  const std::vector<T> x = random_activations<T>(call.tokens * format.cols, 1);
  std::vector<float> bias(format.rows);
  for (std::size_t i = 0; i < bias.size(); ++i) bias[i] = 0.1f + static_cast<float>(i);
  const auto y = multiply_on_device<Out, T>(image, x, bias, call);
  const bool f16_levels = call.kernel == sinq::cuda::matmul_kernel::gemv;
  const auto expected = multiply_in_f64<T>(p, image, x, call.tokens, bias, f16_levels);
  const double relative = std::is_same_v<Out, float> ? 0 : std::is_same_v<Out, __half> ? 0x1p-11 : 0x1p-8;
  CHECK(worst_error<Out>(y, expected, 1e-6, relative) <= 1);
  return y;
}

/// Under every schedule, with the same bits.
template <class T, class Out = float>
void check_product(const sinq::matrix_format& format, const product_call& call) {
  CAPTURE(format.bits, int(format.grid), format.group_size, call.tokens, int(call.kernel));
  std::vector<Out> first;
  for (const sinq_emulation::schedule& order : sinq_emulation::schedules()) {
    const sinq_emulation::scoped_schedule scope{order};
    const std::vector<Out> y = multiply<T, Out>(format, call);
    if (first.empty()) first = y;
    CHECK(std::memcmp(y.data(), first.data(), y.size() * sizeof(Out)) == 0);
  }
}

template <class T>
void check_products() {
  using enum sinq::cuda::matmul_kernel;
  const auto check_all = [](const sinq::matrix_format& format) {
    check_product<T>(format, {3, few_tokens});
    check_product<T>(format, {19, many_tokens});
    check_product<T>(format, {3, gemv});
  };
  // Room for one warp and few stages: what they hold is overwritten again and again.
  sinq_emulation::device().shared_bytes = 24 << 10;
  sinq_emulation::device().multiprocessors = 1;
  check_all({.rows = 37, .cols = 1153, .bits = 4, .group_size = 64});
  sinq_emulation::device() = {};
  check_all({.rows = 18, .cols = 257, .bits = 3, .group_size = 32});
  check_all({.rows = 17, .cols = 130, .bits = 8, .group_size = 128});
  check_all({.rows = 16, .cols = 128, .bits = 2, .group_size = 64});
  check_all({.rows = 16, .cols = 200, .bits = 4, .group_size = 64, .grid = sinq::grid::nf4});
  // Parts that add_splits puts together.
  sinq_emulation::device().multiprocessors = 64;
  check_product<T, T>({.rows = 20, .cols = 2100, .bits = 4, .group_size = 64}, {2, gemv});
  check_product<T, T>({.rows = 20, .cols = 2100, .bits = 4, .group_size = 64}, {8, few_tokens});
  check_product<T, T>({.rows = 20, .cols = 2100, .bits = 4, .group_size = 64}, {9, many_tokens});
  sinq_emulation::device() = {};
}

} // namespace sinq_test
