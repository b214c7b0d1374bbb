/// The emulation of CUDA: how threads run, and that each of its checks fires.

#include "cuda/emulation/emulation.hpp"

#include "support/catch.hpp"

#include <numeric>

using namespace sinq_emulation;
using Catch::Matchers::Contains;

namespace {

constexpr unsigned all_lanes = 0xffffffffU;

template <class Body>
void under_each_schedule(Body body) {
  for (const schedule& order : schedules()) {
    const scoped_schedule scope{order};
    body();
  }
}

/// Runs a kernel under every schedule; what is reported must hold `expected`.
template <class Kernel>
void check_reported(const launch_shape& shape, const std::string& expected, Kernel kernel) {
  under_each_schedule([&] { CHECK_THROWS_WITH(launch(shape, kernel), Contains(expected)); });
}

/// How many different outputs a kernel of one block leaves under the schedules.
template <class Kernel>
std::size_t count_outcomes(unsigned threads, Kernel kernel) {
  std::vector<std::vector<int>> outcomes;
  under_each_schedule([&] {
    std::vector<int> out(threads, -7);
    launch({.grid = {1}, .block = {threads}}, [&] { kernel(out.data()); });
    if (std::find(outcomes.begin(), outcomes.end(), out) == outcomes.end()) outcomes.push_back(out);
  });
  return outcomes.size();
}

/// Sums up its block's numbers through shuffles and shared memory.
__global__ void __launch_bounds__(128) sum_blocks(const int* in, int* out) {
  SINQ_SHARED(int, partial, 4);
  int sum = in[blockIdx.x * blockDim.x + threadIdx.x];
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(all_lanes, sum, step);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) out[blockIdx.x] = partial[0] + partial[1] + partial[2] + partial[3];
}

/// Turns around its block's numbers; Barrier is what a careless author leaves out.
template <bool Barrier>
__global__ void turn_around(int* out) {
  SINQ_SHARED(int, numbers, 128);
  numbers[threadIdx.x] = static_cast<int>(threadIdx.x);
  if constexpr (Barrier) __syncthreads();
  out[threadIdx.x] = numbers[blockDim.x - 1 - threadIdx.x];
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
  std::vector<int> seen(12 * 16, 0);
  launch({.grid = {2, 3, 2}, .block = {4, 2, 2}}, [&] {
    const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    ++seen[block * 16 + thread];
  });
  CHECK(std::all_of(seen.begin(), seen.end(), [](int count) { return count == 1; }));
}

TEST_CASE("shapes that no device takes are reported") {
  const auto nothing = [] {};
  CHECK_THROWS_WITH(launch({.grid = {1}, .block = {1025}}, nothing), Contains("1 to 1024 threads"));
  CHECK_THROWS_WITH(launch({.grid = {0}, .block = {32}}, nothing), Contains("a grid has"));
  CHECK_THROWS_WITH(launch({.grid = {1, 65536}, .block = {32}}, nothing), Contains("a grid has"));
  CHECK_THROWS_WITH(launch({.grid = {1}, .block = {32}, .dynamic_shared_bytes = 227 * 1024 + 1}, nothing),
                    Contains("dynamic shared memory"));
}

TEST_CASE("a missing barrier shows as results that depend on the schedule") {
  CHECK(count_outcomes(128, turn_around<true>) == 1);
  CHECK(count_outcomes(128, turn_around<false>) > 1);
}

TEST_CASE("a barrier missing between lanes of one warp shows too") {
  CHECK(count_outcomes(32, turn_around<false>) > 1);
  CHECK(count_outcomes(32, [](int* out) {
          SINQ_SHARED(int, numbers, 32);
          numbers[threadIdx.x] = static_cast<int>(threadIdx.x);
          __syncwarp();
          out[threadIdx.x] = numbers[31 - threadIdx.x];
        }) == 1);
}

TEST_CASE("threads that wait at no or another barrier are reported") {
  check_reported({.grid = {1}, .block = {64}}, "only 48 threads reach the barrier at emulation_test.cpp", [] {
    if (threadIdx.x < 48) __syncthreads();
  });
  check_reported({.grid = {1}, .block = {64}}, "threads wait at different barriers", [] {
    if (threadIdx.x < 32)
      __syncthreads();
    else
      __syncthreads();
  });
}

TEST_CASE("barriers that vote") {
  under_each_schedule([] {
    std::vector<int> counts(64);
    launch({.grid = {1}, .block = {64}}, [&] {
      const int lane = static_cast<int>(threadIdx.x);
      const int count = __syncthreads_count(lane % 3 == 0 ? 1 : 0);
      const int any = __syncthreads_or(lane == 63 ? 1 : 0);
      const int none = __syncthreads_or(0);
      const int all = __syncthreads_and(1);
      const int not_all = __syncthreads_and(lane != 5 ? 1 : 0);
      counts[threadIdx.x] = count + 100 * any + 1000 * none + 10000 * all + 100000 * not_all;
    });
    CHECK(counts == std::vector<int>(64, 22 + 100 + 10000));
  });
}

TEST_CASE("shuffles and votes give what CUDA says") {
  under_each_schedule([] {
    launch({.grid = {1}, .block = {64}}, [] {
      const int lane = static_cast<int>(threadIdx.x % 32);
      bool right = __shfl_sync(all_lanes, lane, 5) == 5;
      right &= __shfl_sync(all_lanes, lane, 5, 8) == lane / 8 * 8 + 5;
      right &= __shfl_sync(all_lanes, lane, 11, 8) == lane / 8 * 8 + 3;
      right &= __shfl_up_sync(all_lanes, lane, 3) == (lane < 3 ? lane : lane - 3);
      right &= __shfl_down_sync(all_lanes, lane, 3, 16) == (lane % 16 > 12 ? lane : lane + 3);
      right &= __shfl_xor_sync(all_lanes, 0.5 + lane, 9) == 0.5 + (lane ^ 9);
      right &= __ballot_sync(all_lanes, lane % 2) == 0xaaaaaaaaU;
      right &= __any_sync(all_lanes, lane == 7 ? 1 : 0) == 1 && __any_sync(all_lanes, 0) == 0;
      right &= __all_sync(all_lanes, 1) == 1 && __all_sync(all_lanes, lane == 7 ? 0 : 1) == 0;
      if (!right) detail::fail(place::current(), "wrong");
    });
  });
}

TEST_CASE("parts of a warp may meet at a time, in one mask after the other") {
  under_each_schedule([] {
    std::vector<int> out(32);
    launch({.grid = {1}, .block = {32}}, [&] {
      int sum = static_cast<int>(threadIdx.x);
      sum += __shfl_xor_sync(all_lanes, sum, 16);
      const unsigned half = threadIdx.x < 16 ? 0xffffU : 0xffff0000U;
      for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(half, sum, step);
      const int other = __shfl_xor_sync(all_lanes, sum, 16);
      out[threadIdx.x] = sum + other;
    });
    CHECK(out == std::vector<int>(32, 2 * 31 * 32 / 2));
  });
}

TEST_CASE("wrong masks are reported") {
  const launch_shape one_warp{.grid = {1}, .block = {32}};
  check_reported(one_warp, "the lane is not in its own mask", [] { (void)__shfl_xor_sync(0xffffU, 1, 1); });
  check_reported(one_warp, "lanes of a warp do not arrive", [] {
    if (threadIdx.x != 9) (void)__shfl_xor_sync(all_lanes, 1, 1);
  });
  check_reported(one_warp, "lane 16 is read but not in the mask", [] {
    if (threadIdx.x < 16) (void)__shfl_sync(0xffffU, 1, 16);
  });
  check_reported(one_warp, "lanes of one warp meet at different collective operations", [] {
    if (threadIdx.x < 16)
      (void)__shfl_xor_sync(all_lanes, 1, 1);
    else
      (void)__shfl_xor_sync(all_lanes, 1, 2);
  });
  check_reported(one_warp, "lanes of a warp do not arrive",
                 [] { (void)__shfl_xor_sync(threadIdx.x < 16 ? all_lanes : all_lanes - 2, 1, 1); });
  check_reported(one_warp, "__shfl_xor_sync leaves its segment", [] { (void)__shfl_xor_sync(all_lanes, 1, 32); });
  check_reported(one_warp, "the width is a power of two", [] { (void)__shfl_sync(all_lanes, 1, 1, 12); });
  check_reported({.grid = {1}, .block = {48}}, "lanes of a warp do not arrive", [] { __syncwarp(); });
  check_reported({.grid = {1}, .block = {64}}, "lanes of a warp do not arrive", [] {
    if (threadIdx.x == 3) __syncthreads();
    __syncwarp();
  });
}

TEST_CASE("a launch after a fault begins afresh") {
  CHECK_THROWS_AS(launch({.grid = {1}, .block = {64}},
                         [] {
                           if (threadIdx.x == 0) __syncthreads();
                         }),
                  fault);
  CHECK(count_outcomes(128, turn_around<true>) == 1);
}

TEST_CASE("shared memory is NaN until it is written, for each block") {
  std::vector<float> found(2 * 32);
  launch({.grid = {2}, .block = {32}}, [&] {
    SINQ_SHARED(float, numbers, 32);
    found[blockIdx.x * 32 + threadIdx.x] = numbers[threadIdx.x];
    numbers[threadIdx.x] = 1.0f;
  });
  CHECK(std::all_of(found.begin(), found.end(), [](float value) { return std::isnan(value); }));
}

TEST_CASE("arrays in shared memory are apart, aligned, and limited") {
  launch({.grid = {1}, .block = {32}, .dynamic_shared_bytes = 1000}, [] {
    SINQ_SHARED(char, bytes, 5);
    SINQ_SHARED(double, numbers, 3);
    SINQ_DYNAMIC_SHARED(float, more);
    const auto address = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p); };
    if (address(bytes) % 16 != 0 || address(numbers) % 16 != 0 || address(more) % 16 != 0)
      detail::fail(place::current(), "not aligned");
    for (int k = 0; k < 250; ++k) more[k] = 1.0f;
    for (int k = 0; k < 5; ++k) bytes[k] = 1;
    for (int k = 0; k < 3; ++k) numbers[k] = 1.0;
  });
  check_reported({.grid = {1}, .block = {32}}, "more than 48 KiB", [] {
    SINQ_SHARED(char, all, 48 * 1024);
    SINQ_SHARED(char, more, 1);
    all[0] = more[0] = 0;
  });
}

TEST_CASE("a write past the end of shared memory is noticed") {
  const auto past_the_end = [](int* numbers) { return numbers + 32; };
#if defined(SINQ_EMULATION_ASAN)
  launch({.grid = {1}, .block = {32}}, [&] {
    SINQ_SHARED(int, numbers, 32);
    if (__asan_address_is_poisoned(past_the_end(numbers)) == 0 || __asan_address_is_poisoned(numbers - 1) == 0 ||
        __asan_address_is_poisoned(numbers + 31) != 0)
      detail::fail(place::current(), "not forbidden");
  });
#else
  check_reported({.grid = {1}, .block = {32}}, "shared memory was written outside of its arrays", [&] {
    SINQ_SHARED(int, numbers, 32);
    *past_the_end(numbers) = 5;
  });
#endif
}

TEST_CASE("asynchronous copies land when they are waited for, and not before") {
  alignas(16) const std::array<int, 8> source{1, 2, 3, 4, 5, 6, 7, 8};
  launch({.grid = {1}, .block = {1}}, [&] {
    SINQ_SHARED(int, target, 12);
    const auto expect = [&](int first, int second, int third) {
      if (target[3] != first || target[7] != second || target[11] != third) detail::fail(place::current(), "wrong");
    };
    for (int k = 0; k < 12; ++k) target[k] = 9;
    cp_async<16>(target, source.data());
    cp_async_commit();
    cp_async<16>(target + 4, source.data() + 4);
    cp_async<16>(target + 8, nullptr, false);
    cp_async_commit();
    expect(-1, -1, -1);
    cp_async_wait<2>();
    expect(-1, -1, -1);
    cp_async_wait<1>();
    expect(4, -1, -1);
    cp_async_wait<0>();
    expect(4, 8, 0);
    cp_async<4>(target, source.data() + 1);
    cp_async_wait<0>();
    if (target[0] != -1) detail::fail(place::current(), "a group that is open landed");
  });
}

TEST_CASE("asynchronous copies between addresses that are not aligned are reported") {
  alignas(16) const std::array<int, 8> source{};
  check_reported({.grid = {1}, .block = {1}}, "not aligned to 16 bytes", [&] {
    SINQ_SHARED(int, target, 8);
    cp_async<16>(target + 1, source.data());
  });
  check_reported({.grid = {1}, .block = {1}}, "not aligned to 16 bytes", [&] {
    SINQ_SHARED(int, target, 8);
    cp_async<16>(target, source.data() + 2);
  });
}

TEST_CASE("the runtime counts its calls, fails when asked to, and knows what is allocated") {
  device() = {};
  float* memory = nullptr;
  REQUIRE(cudaMalloc(&memory, 8) == cudaSuccess);
  CHECK(std::isnan(memory[0]));
  CHECK(device().allocated.size() == 1);
  device().calls_until_failure = 1;
  const std::array<float, 2> source{1.0f, 2.0f};
  CHECK(cudaMemcpyAsync(memory, source.data(), 8, cudaMemcpyHostToDevice) == cudaSuccess);
  CHECK(memory[1] == 2.0f);
  CHECK(cudaMemsetAsync(memory, 0, 8) != cudaSuccess);
  CHECK(memory[1] == 2.0f);
  CHECK(cudaGetLastError() == cudaErrorLaunchFailure);
  CHECK(cudaGetLastError() == cudaSuccess);
  launch_on_stream({.grid = {1}, .block = {2000}}, nullptr, [] {});
  CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
  CHECK(cudaFree(memory) == cudaSuccess);
  CHECK(cudaFree(reinterpret_cast<void*>(std::uintptr_t{64})) == cudaErrorInvalidValue);
  CHECK(device().allocated.empty());
  device() = {};
  device().count = 0;
  CHECK(cudaMalloc(&memory, 8) == cudaErrorNoDevice);
  device() = {};
}
