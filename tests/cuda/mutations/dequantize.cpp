#include "prelude.hpp"

#include "cuda/device.hpp"

using namespace sinq_test;

TEST_CASE("weights are those of the CPU") {
  for (sinq::matrix_format f : std::vector<sinq::matrix_format>{
           {.bits = 2}, {.bits = 3}, {.bits = 4}, {.bits = 8}, {.bits = 4, .grid = sinq::grid::nf4}})
    for (const std::size_t group_size : {32u, 128u}) {
      f.group_size = group_size;
      f.rows = 37;
      f.cols = 323;
      const sinq::packed_matrix p = random_weight(f, 1, 10);
      CHECK(different_weights<float>(p, f.cols) == 0);
      CHECK(different_weights<__half>(p, f.cols + 5) == 0);
      CHECK(different_weights<__nv_bfloat16>(p, (f.cols + 7) / 8 * 8) == 0);
    }
}
