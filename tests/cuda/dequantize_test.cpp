#include "cuda/device.hpp"

using namespace sinq_test;
namespace cuda = sinq::cuda;

namespace {

/// Weights in T on the device, in rows of `stride` elements.
template <class T>
std::vector<T> on_device(const sinq::packed_matrix& p, std::size_t stride) {
  const auto w = must(cuda::device_matrix::upload(must(cuda::to_device_layout(p))));
  auto to = must(cuda::device_buffer<T>::make(p.format.rows * stride));
  must(cuda::dequantize(w, cuda::device_view<T>{to.data(), p.format.rows, p.format.cols, stride}));
  std::vector<T> back(to.size());
  must(to.download(back));
  return back;
}

/// How many weights are not those of the CPU, rounded to T.
template <class T>
std::size_t different(const sinq::packed_matrix& p, std::size_t stride) {
  const std::vector<float> expected = sinq::dequantize(p);
  const std::vector<T> actual = on_device<T>(p, stride);
  std::size_t count = 0;
  for (std::size_t i = 0; i < p.format.rows; ++i)
    for (std::size_t j = 0; j < p.format.cols; ++j)
      count += as_double(actual[i * stride + j]) != as_held<T>(expected[i * p.format.cols + j]);
  return count;
}

} // namespace

TEST_CASE("the device dequantizes to the bits of the CPU, rounded once more for 16 bits") {
  for (sinq::matrix_format f : std::vector<sinq::matrix_format>{
           {.bits = 2}, {.bits = 3}, {.bits = 4}, {.bits = 8}, {.bits = 4, .grid = sinq::grid::nf4}})
    for (const std::size_t group_size : {32u, 64u, 128u})
      for (const auto& [rows, cols] : {std::pair{37u, 576u}, {16u, 131u}}) {
        f.group_size = group_size;
        f.rows = rows;
        f.cols = cols;
        CAPTURE(f.bits, int(f.grid), group_size, rows, cols);
        const sinq::packed_matrix p = random_weight(f, rows, 10);
        CHECK(different<float>(p, cols) == 0);
        CHECK(different<__half>(p, cols + 5) == 0);
        CHECK(different<__nv_bfloat16>(p, (cols + 7) / 8 * 8) == 0);
      }
}

TEST_CASE("a result of another shape is an error") {
  const auto w =
      must(cuda::device_matrix::upload(must(cuda::to_device_layout(random_weight({.rows = 4, .cols = 64}, 1)))));
  const auto done = cuda::dequantize(w, cuda::device_view<float>{nullptr, 4, 63});
  REQUIRE(!done);
  CHECK(done.error().message == "cuda::dequantize: into 4 x 63, expected 4 x 64");
}
