/// The watch over memory: it finds planted races, and nothing in kernels that are in order.

#include "watch.hpp"

#include "support/catch.hpp"

using namespace sinq_emulation;
using Catch::Matchers::Contains;

namespace {

constexpr launch_shape two_warps{.grid = {1}, .block = {64}};

template <class Kernel>
void check_race(const std::string& expected, Kernel kernel) {
  for (const schedule& order : all_schedules()) {
    const scoped_schedule scope{order};
    CHECK_THROWS_WITH(launch(two_warps, kernel), Contains(expected));
  }
}

template <class Kernel>
void check_in_order(Kernel kernel) {
  for (const schedule& order : all_schedules()) {
    const scoped_schedule scope{order};
    CHECK_NOTHROW(launch(two_warps, kernel));
  }
}

} // namespace

TEST_CASE("a barrier puts accesses in order") {
  CHECK_NOTHROW(launch({.grid = {3}, .block = {32}}, [] {
    SINQ_SHARED(volatile int, numbers, 32);
    numbers[(threadIdx.x + blockIdx.x) % 32] = 1;
  }));
  check_in_order([] {
    SINQ_SHARED(volatile int, numbers, 64);
    for (int round = 0; round < 3; ++round) {
      numbers[threadIdx.x] = round;
      __syncthreads();
      const int sum = numbers[63 - threadIdx.x] + numbers[0];
      __syncthreads();
      numbers[63 - threadIdx.x] = sum;
      __syncthreads();
    }
  });
}

TEST_CASE("a barrier of a warp puts its lanes' accesses in order, and no others") {
  check_in_order([] {
    SINQ_SHARED(volatile int, numbers, 64);
    numbers[threadIdx.x] = 1;
    __syncwarp();
    const int other = numbers[threadIdx.x ^ 31U];
    __syncwarp();
    numbers[threadIdx.x] = other;
  });
  check_race("memory is ", [] {
    SINQ_SHARED(volatile int, numbers, 64);
    numbers[threadIdx.x] = 1;
    __syncwarp();
    (void)numbers[threadIdx.x ^ 63U];
  });
}

TEST_CASE("each kind of race is found under every schedule") {
  check_race("memory is ", [] {
    SINQ_SHARED(volatile int, numbers, 64);
    numbers[threadIdx.x] = 1;
    (void)numbers[threadIdx.x ^ 1U];
  });
  check_race("memory is written that another thread wrote", [] {
    SINQ_SHARED(volatile int, numbers, 1);
    numbers[0] = 1;
  });
  // Everyone reads, the last one writes.
  check_race("memory is ", [] {
    SINQ_SHARED(volatile int, numbers, 1);
    if (threadIdx.x == 0) numbers[0] = 1;
    __syncthreads();
    const int value = numbers[0];
    if (threadIdx.x == 63) numbers[0] = value + 1;
  });
  // A loop whose end lacks a barrier.
  check_race("memory is ", [] {
    SINQ_SHARED(volatile int, numbers, 64);
    for (int round = 0; round < 2; ++round) {
      numbers[threadIdx.x] = round;
      __syncthreads();
      (void)numbers[63 - threadIdx.x];
    }
  });
  // A shuffle is no barrier for memory.
  check_race("memory is ", [] {
    SINQ_SHARED(volatile int, numbers, 64);
    numbers[threadIdx.x] = 1;
    (void)__shfl_xor_sync(0xffffffffU, 1, 1);
    (void)numbers[threadIdx.x ^ 1U];
  });
}

TEST_CASE("an asynchronous copy is a write from its start to its wait") {
  alignas(16) static const std::array<int, 4 * 64> source{};
  check_in_order([] {
    SINQ_SHARED(int, target, 4 * 64);
    cp_async<16>(target + 4 * threadIdx.x, source.data() + 4 * threadIdx.x);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    (void)*static_cast<volatile int*>(target + 4 * (63 - threadIdx.x));
  });
  check_race("memory is ", [] {
    SINQ_SHARED(int, target, 4 * 64);
    cp_async<16>(target + 4 * threadIdx.x, source.data() + 4 * threadIdx.x);
    cp_async_commit();
    __syncthreads();
    (void)*static_cast<volatile int*>(target + 4 * (63 - threadIdx.x));
    cp_async_wait<0>();
  });
}

TEST_CASE("shared memory that nobody wrote is not read") {
  check_race("shared memory is read that nobody wrote", [] {
    SINQ_SHARED(volatile int, numbers, 64);
    if (threadIdx.x < 63) numbers[threadIdx.x] = 1;
    __syncthreads();
    (void)numbers[threadIdx.x];
  });
}

TEST_CASE("blocks of one launch must not depend on each other, launches may") {
  device() = {};
  int* memory = nullptr;
  REQUIRE(cudaMalloc(&memory, 64 * sizeof(int)) == cudaSuccess);
  volatile int* const numbers = memory;
  const auto write = [&] { numbers[blockIdx.x * 32 + threadIdx.x] = 1; };
  const auto read_other = [&] { (void)numbers[(1 - blockIdx.x) * 32 + threadIdx.x]; };
  CHECK_NOTHROW(launch({.grid = {2}, .block = {32}}, write));
  CHECK_NOTHROW(launch({.grid = {2}, .block = {32}}, read_other));
  CHECK_THROWS_WITH(launch({.grid = {2}, .block = {32}},
                           [&] {
                             write();
                             read_other();
                           }),
                    Contains("with no barrier between"));
  CHECK_THROWS_WITH(launch({.grid = {2}, .block = {32}}, [&] { numbers[threadIdx.x] = 1; }),
                    Contains("memory is written that another thread wrote"));
  CHECK(cudaFree(memory) == cudaSuccess);
}
