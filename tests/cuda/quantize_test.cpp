#include "cuda/quantized.hpp"
#include "support/random_matrices.hpp"

using namespace sinq_test;
namespace cuda = sinq::cuda;

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
  check_same(value_of(on_device(w, o)), quantized_on_cpu(w.view(), o));
}

} // namespace

TEST_CASE("the device quantizes to the bytes of the CPU") {
  for (const unsigned group_size : {32u, 64u, 128u}) {
    const matrix w = gaussian(35, 150, group_size);
    for (const int bits : {2, 3, 4, 8})
      check(w, {.bits = bits, .group_size = group_size, .sinkhorn = {.iterations = 5}});
    check(w, {.grid = sinq::grid::nf4, .group_size = group_size, .sinkhorn = {.iterations = 2}});
    check(w, {.balance = false, .group_size = group_size});
    check(w, {.balance = false, .grid = sinq::grid::nf4, .group_size = group_size});
    check(w, {.balance = false, .group_size = group_size, .symmetric = true});
    check(w, {.balance = false, .grid = sinq::grid::nf4, .group_size = group_size, .symmetric = true});
    check(w, {.balance = false, .group_size = group_size, .zero = sinq::zero_mode::fractional});
  }
}

TEST_CASE("the device quantizes difficult weights to the bytes of the CPU") {
  matrix huge = gaussian(20, 64, 1), tiny = gaussian(20, 64, 2), uneven = gaussian(50, 64, 3);
  for (float& value : huge.values) value *= 1e30f;
  for (float& value : tiny.values) value *= 1e-36f;
  for (std::size_t n = 0; n < uneven.values.size(); ++n) // rows far apart: scales that f16 cannot hold side by side
    uneven.values[n] *= std::exp(0.4f * static_cast<float>(n / uneven.cols)) * 1e-4f;
  matrix far = gaussian(20, 100, 4);
  for (float& value : far.values) value += 5.0f;
  const std::vector<matrix> all{with_outliers(33, 96, 5),
                                with_constant_rows(20, 64, 6),
                                with_zero_groups(20, 128, 7, 64),
                                huge,
                                tiny,
                                uneven,
                                far,
                                matrix{20, 70},
                                gaussian(1, 130, 8),
                                gaussian(37, 1, 9)};
  for (const matrix& w : all) {
    check(w, {.sinkhorn = {.iterations = 3}});
    check(w, {.grid = sinq::grid::nf4, .sinkhorn = {.iterations = 1}});
    for (const bool symmetric : {true, false}) {
      check(w, {.balance = false, .bits = 8, .group_size = 32, .symmetric = symmetric});
      check(w, {.balance = false, .grid = sinq::grid::nf4, .symmetric = symmetric});
    }
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
  check(w, {.sinkhorn = {.iterations = 0}});
  check(w, {.sinkhorn = {.iterations = 3}});
  check(w, {.sinkhorn = {.iterations = 20, .stop_when_worse = false}});
  check(w, {.sinkhorn = {.ratio_min = 0.5f, .ratio_max = 3.0f, .log_scale_min = -2, .any_magnitude = false}});
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
