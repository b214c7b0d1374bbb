#include "prelude.hpp"

#include "cuda/device.hpp"

using namespace sinq_test;

namespace {

template <class T>
void check(const sinq::packed_matrix& p, std::size_t stride) {
  const auto w = must(sinq::cuda::device_matrix::upload(must(sinq::cuda::to_device_layout(p))));
  auto to = must(sinq::cuda::device_buffer<T>::make(p.format.rows * stride));
  must(sinq::cuda::dequantize(w, sinq::cuda::device_view<T>{to.data(), p.format.rows, p.format.cols, stride}));
  std::vector<T> actual(to.size());
  must(to.download(actual));
  const std::vector<float> expected = sinq::dequantize(p);
  std::size_t different = 0;
  for (std::size_t i = 0; i < p.format.rows; ++i)
    for (std::size_t j = 0; j < p.format.cols; ++j)
      different += as_double(actual[i * stride + j]) != as_held<T>(expected[i * p.format.cols + j]);
  CHECK(different == 0);
}

} // namespace

TEST_CASE("weights are those of the CPU") {
  for (sinq::matrix_format f : std::vector<sinq::matrix_format>{
           {.bits = 2}, {.bits = 3}, {.bits = 4}, {.bits = 8}, {.bits = 4, .grid = sinq::grid::nf4}})
    for (const std::size_t group_size : {32u, 128u}) {
      f.group_size = group_size;
      f.rows = 37;
      f.cols = 323;
      const sinq::packed_matrix p = random_weight(f, 1, 10);
      check<float>(p, f.cols);
      check<__half>(p, f.cols + 5);
      check<__nv_bfloat16>(p, (f.cols + 7) / 8 * 8);
    }
}
