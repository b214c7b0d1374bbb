#include "cuda/quantized.hpp"
#include "support/random_matrices.hpp"

using namespace sinq_test;
namespace cuda = sinq::cuda;
using rule = sinq::sinkhorn_rule;

namespace {

template <class T = float>
sinq::result<cuda::device_image> on_device(const matrix& w, const cuda::quantize_options& o) {
  std::vector<T> values;
  for (const float value : w.values) {
    if constexpr (std::is_same_v<T, float>)
      values.push_back(value);
    else
      values.push_back(cuda::ptx::bit_cast<T>(cuda::ptx::from_float(cuda::detail::float_tag<T>{}, value)));
  }
  const auto buffer = value_of(cuda::device_buffer<T>::copy_of(values));
  auto work = value_of(cuda::workspace::make());
  const auto q = cuda::quantize(cuda::device_view<const T>{buffer.data(), w.rows, w.cols}, o, work);
  if (!q) return q.error();
  return q->download();
}

void check_same(const cuda::device_image& actual, const cuda::device_image& expected) {
  CHECK(actual.t == expected.t);
  CHECK(actual.unit == expected.unit);
  CHECK(actual.levels == expected.levels);
  std::size_t different = 0;
  for (std::size_t n = 0; n < expected.weights.size(); ++n) different += actual.weights[n] != expected.weights[n];
  CHECK(different == 0);
}

void check(const matrix& w, const cuda::quantize_options& o) {
  CAPTURE(w.rows, w.cols, o.bits, o.group_size, o.balance, o.symmetric, int(o.grid), int(o.zero));
  CAPTURE(o.sinkhorn.iterations, int(o.sinkhorn.rule.value_or(rule::alternating)));
  check_same(value_of(on_device(w, o)), quantized_on_cpu(w.view(), o));
}

/// Both rules.
void check_rules(const matrix& w, cuda::quantize_options o) {
  for (const rule by : {rule::alternating, rule::reference}) {
    o.sinkhorn.rule = by;
    check(w, o);
  }
}

/// Rows or columns that spread by up to e^reach more than others.
matrix uneven(std::size_t rows, std::size_t cols, unsigned seed, float reach, bool in_rows) {
  matrix w = gaussian(rows, cols, seed);
  for (std::size_t n = 0; n < w.values.size(); ++n) {
    const std::size_t line = in_rows ? n / cols : n % cols * 7 % cols;
    w.values[n] *= std::exp(reach * static_cast<float>(line) / static_cast<float>(in_rows ? rows : cols));
  }
  return w;
}

/// One hot row and column each, and products of both: the first pass leaves what a second one evens out.
matrix slow_to_even_out(std::size_t rows) {
  matrix w = uneven(rows, 64, 16, 5, false);
  for (std::size_t n = 0; n < w.values.size(); ++n) w.values[n] *= n / 64 % 9 == n % 9 ? 300.0f : 1.0f;
  return w;
}

} // namespace

TEST_CASE("the device quantizes to the bytes of the CPU") {
  for (const unsigned group_size : {32u, 64u, 128u}) {
    const matrix w = gaussian(35, 150, group_size);
    for (const int bits : {2, 3, 4, 8})
      check_rules(w, {.bits = bits, .group_size = group_size, .sinkhorn = {.iterations = 5}});
    check_rules(w, {.grid = sinq::grid::nf4, .group_size = group_size, .sinkhorn = {.iterations = 2}});
    check(w, {.group_size = group_size, .symmetric = true});
    check(w, {.grid = sinq::grid::nf4, .group_size = group_size, .symmetric = true});
    check(w, {.group_size = group_size, .zero = sinq::zero_mode::fractional});
    check(w, {.balance = false, .group_size = group_size});
    check(w, {.balance = false, .grid = sinq::grid::nf4, .group_size = group_size});
    check(w, {.balance = false, .group_size = group_size, .symmetric = true});
    check(w, {.balance = false, .grid = sinq::grid::nf4, .group_size = group_size, .symmetric = true});
    check(w, {.balance = false, .group_size = group_size, .zero = sinq::zero_mode::fractional});
  }
}

TEST_CASE("the device quantizes difficult weights to the bytes of the CPU") {
  const auto times = [](matrix w, float by) {
    for (float& value : w.values) value *= by;
    return w;
  };
  matrix far = gaussian(20, 100, 4), zero_columns = gaussian(20, 70, 12), holes{37, 128};
  for (float& value : far.values) value += 5.0f;
  for (std::size_t n = 0; n < zero_columns.values.size(); n += 5) zero_columns.values[n] = 0; // of every column, or all
  for (std::size_t i = 0; i < 3; ++i) holes.values[i * 12 * 128 + i * 5] = static_cast<float>(i) - 1.5f;
  const std::vector<matrix> all{with_outliers(33, 96, 5),
                                with_constant_rows(20, 64, 6),
                                with_zero_groups(20, 128, 7, 64),
                                times(gaussian(20, 64, 1), 1e30f),
                                times(gaussian(20, 64, 1), 0x1p121f), // where the CPU takes rows one by one
                                times(gaussian(20, 64, 2), 1e-36f),
                                times(uneven(50, 64, 3, 20, true), 1e-4f), // scales that f16 cannot hold side by side
                                uneven(40, 64, 13, 60, true),              // squares that float cannot
                                uneven(40, 64, 14, 12, false),             // beyond the narrowest column
                                far,
                                zero_columns,
                                holes,
                                matrix{20, 70},
                                gaussian(1, 130, 8),
                                matrix{1, 64},
                                gaussian(2, 66, 15),
                                gaussian(37, 1, 9)};
  for (const matrix& w : all) {
    check_rules(w, {.sinkhorn = {.iterations = 3}});
    check_rules(w, {.grid = sinq::grid::nf4, .sinkhorn = {.iterations = 1}});
    check(w, {});
    for (const bool symmetric : {true, false}) {
      check(w, {.bits = 8, .group_size = 32, .symmetric = symmetric});
      check(w, {.balance = false, .bits = 8, .group_size = 32, .symmetric = symmetric});
      check(w, {.balance = false, .grid = sinq::grid::nf4, .symmetric = symmetric});
    }
  }
}

TEST_CASE("denormal weights are balanced like any others") {
  matrix w = gaussian(20, 64, 2);
  for (float& value : w.values) value *= 1e-42f;
  check(w, {});
  check(w, {.grid = sinq::grid::nf4});
}

TEST_CASE("the device takes as many passes as the CPU") {
  const matrix w = slow_to_even_out(90);
  const auto image = [&](int iterations) { return value_of(on_device(w, {.sinkhorn = {.iterations = iterations}})).t; };
  CHECK(image(1) != image(2));
  CHECK(image(2) != image(16));
  for (const int iterations : {0, 1, 2, 3, 16}) check(w, {.sinkhorn = {.iterations = iterations}});
}

TEST_CASE("tall tiles are summed up in the order of the CPU") {
  for (const std::size_t rows : {64u, 65u, 513u, 1040u}) {
    check_rules(gaussian(rows, 33, 17), {.sinkhorn = {.iterations = 4}});
    check(slow_to_even_out(rows), {.sinkhorn = {.iterations = 4}});
  }
}

TEST_CASE("the device reads weights of 16 bits") {
  const matrix w = gaussian(40, 150, 10);
  const auto rounded_to = [&](auto type) {
    matrix to = w;
    for (float& value : to.values) value = static_cast<float>(as_held<decltype(type)>(value));
    return to;
  };
  check_same(value_of(on_device<__half>(w, {})), quantized_on_cpu(rounded_to(__half{}).view(), {}));
  check_same(value_of(on_device<__nv_bfloat16>(w, {})), quantized_on_cpu(rounded_to(__nv_bfloat16{}).view(), {}));
}

TEST_CASE("the iteration's options are those of the CPU") {
  const matrix w = with_outliers(40, 64, 11);
  check_rules(w, {.sinkhorn = {.iterations = 0}});
  check_rules(w, {.sinkhorn = {.iterations = 3}});
  check_rules(w, {.sinkhorn = {.iterations = 20, .stop_when_worse = false}});
  check_rules(w, {.sinkhorn = {.ratio_min = 0.5f, .ratio_max = 3.0f, .log_scale_min = -2, .any_magnitude = false}});
}

TEST_CASE("what cannot be quantized on the device is an error") {
  matrix w = gaussian(40, 150, 12);
  const auto code_of = [&](const cuda::quantize_options& o) {
    const auto made = on_device(w, o);
    return made ? std::string{"none"} : std::string{sinq::to_string(made.error().code)} + ": " + made.error().message;
  };
  CHECK(code_of({.bits = 5}) == "invalid argument: cuda::quantize: bits is 5, expected 2, 3, 4 or 8");
  CHECK(code_of({.grid = sinq::grid::nf4, .bits = 3}) ==
        "invalid argument: cuda::quantize: bits is 3, expected 4, the only width of nf4");
  CHECK(code_of({.group_size = 48}) == "invalid argument: cuda::quantize: group_size is 48, expected 32, 64 or 128");
  CHECK(code_of({.grid = sinq::grid::nf3}) == "unsupported: cuda::quantize: expected a uniform grid or nf4");
  CHECK(code_of({.sinkhorn = {.iterations = -1}}).starts_with("invalid argument: "));
  w.values[7 * 150 + 149] = std::nanf("");
  w.values[9 * 150 + 3] = INFINITY;
  CHECK(code_of({}) == "non-finite value: non-finite weight at row 7, column 149 of 40 x 150");
  w = matrix{};
  CHECK(code_of({}) == "empty matrix: cuda::quantize: the matrix is 0 x 0");
}
