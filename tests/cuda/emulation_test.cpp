/// The emulation of CUDA: what it computes, and that each of its checks fires.

#include "cuda/emulation/emulation.hpp"

#include "support/catch.hpp"

#include <Eigen/Core>

#include <numeric>

using namespace sinq_emulation;
using Catch::Matchers::Contains;

namespace {

/// Runs a kernel under every schedule; what it reports must hold `expected`.
template <class Kernel>
void check_reported(const launch_shape& shape, const std::string& expected, Kernel kernel) {
  for (const schedule& order : schedules()) {
    const scoped_schedule scope{order};
    CHECK_THROWS_WITH(launch(shape, kernel), Contains(expected));
  }
}

template <class Body>
void under_each_schedule(Body body) {
  for (const schedule& order : schedules()) {
    const scoped_schedule scope{order};
    body();
  }
}

/// Sums its block's numbers through shared memory and shuffles.
__global__ void __launch_bounds__(128) sum_blocks(const int* in, int* out) {
  SINQ_SHARED(int, partial, 4);
  int sum = in[blockIdx.x * blockDim.x + threadIdx.x];
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, step);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) out[blockIdx.x] = partial[0] + partial[1] + partial[2] + partial[3];
}

} // namespace

TEST_CASE("a kernel runs under every schedule") {
  std::vector<int> in(5 * 128);
  std::iota(in.begin(), in.end(), 1);
  under_each_schedule([&] {
    std::vector<int> out(5, -1);
    launch({.grid = {5}, .block = {128}}, [&] { sum_blocks(in.data(), out.data()); });
    for (int b = 0; b < 5; ++b) CHECK(out[static_cast<std::size_t>(b)] == 128 * (128 * b) + 128 * 129 / 2);
  });
}

TEST_CASE("indices are as CUDA numbers them") {
  std::vector<int> seen(2 * 3 * 2 * 4 * 2 * 2, 0);
  launch({.grid = {2, 3, 2}, .block = {4, 2, 2}}, [&] {
    const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    ++seen[block * 16 + thread];
  });
  CHECK(std::all_of(seen.begin(), seen.end(), [](int count) { return count == 1; }));
}
