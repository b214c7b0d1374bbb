#include "cuda/device.hpp"

using namespace sinq_test;
namespace cuda = sinq::cuda;

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
        CHECK(different_weights<float>(p, cols) == 0);
        CHECK(different_weights<__half>(p, cols + 5) == 0);
        CHECK(different_weights<__nv_bfloat16>(p, (cols + 7) / 8 * 8) == 0);
      }
}

TEST_CASE("a result of another shape is an error") {
  const auto w = value_of(
      cuda::device_matrix::upload(value_of(cuda::to_device_layout(random_weight({.rows = 4, .cols = 64}, 1)))));
  const auto done = cuda::dequantize(w, cuda::device_view<float>{nullptr, 4, 63});
  REQUIRE(!done);
  CHECK(done.error().message == "cuda::dequantize: into 4 x 63, expected 4 x 64");
}
