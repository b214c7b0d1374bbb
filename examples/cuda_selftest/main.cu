/// Runs every kernel of sinq::cuda on this machine's GPU: compares it with the CPU, and times it.
/// sinq_cuda_selftest [check|time]   exit status 0: all passed, 1: something failed, 2: no device

#include "primitives.hpp"
#include "timing.hpp"

#include <cstdio>
#include <cstring>

namespace selftest {
namespace {

void run_checks(tally& t, int compute_capability) {
  check_primitives(t, compute_capability);
  for (const weight_options& o : all_formats(37, 576)) {
    check_dequantize<float>(t, o);
    check_dequantize<__half>(t, o);
    check_dequantize<__nv_bfloat16>(t, o);
  }
  for (const weight_options& o : all_formats(333, 1300))
    for (const bool balance : {true, false})
      check_quantize(t, {balance, o.bits, o.nf4, o.group_size, false, o.rows, o.cols});
  check_quantize(t, {true, 4, false, 64, true, 4096, 4096});
  check_kernel(t, matmul_kernel::gemv, 1, 8);
  check_matmul<__half>(t, {4, false, 64, 4096, 4096}, 1, matmul_kernel::gemv);
  check_callback(t, {4, false, 64, 136, 1304}, 70);
  if (compute_capability < 80) return;
  check_kernel(t, matmul_kernel::few_tokens, 1, 8);
  check_kernel(t, matmul_kernel::few_tokens, 13, 3);
  check_kernel(t, matmul_kernel::few_tokens, 32, 27);
  check_kernel(t, matmul_kernel::many_tokens, 70, 130);
  check_matmul<__half>(t, {4, false, 64, 4096, 4096, 10}, 8, matmul_kernel::few_tokens, 1000);
  check_matmul<__half>(t, {8, false, 64, 4096, 4096}, 2, matmul_kernel::few_tokens);
  check_matmul<__half>(t, {4, false, 64, 4096, 4096, 10}, 64, matmul_kernel::many_tokens, 1000);
  check_matmul<__nv_bfloat16>(t, {3, false, 64, 4096, 4096}, 512, matmul_kernel::many_tokens);
}

} // namespace
} // namespace selftest

int main(int argc, char** argv) {
  const bool only_check = argc > 1 && std::strcmp(argv[1], "check") == 0;
  const bool only_time = argc > 1 && std::strcmp(argv[1], "time") == 0;
  if (argc > 2 || (argc == 2 && !only_check && !only_time)) {
    std::fprintf(stderr, "usage: %s [check|time]\n", argv[0]);
    return 1;
  }
  const auto device = sinq::cuda::device_info::current();
  if (!device) {
    std::fprintf(stderr, "no CUDA device: %s\n", device.error().message.c_str());
    return 2;
  }
  cudaDeviceProp properties{};
  selftest::must(sinq::cuda::check(cudaGetDeviceProperties(&properties, device->number), "cudaGetDeviceProperties"));
  std::printf("%s, sm_%d, %d multiprocessors, %zu KiB of shared memory a block\n", properties.name,
              device->compute_capability, device->multiprocessors, device->shared_bytes >> 10);
  selftest::tally tally;
  if (!only_time) selftest::run_checks(tally, device->compute_capability);
  if (!only_check) selftest::run_timing(tally, device->compute_capability);
  std::printf("%d passed, %d failed\n", tally.passed, tally.failed);
  return tally.failed == 0 ? 0 : 1;
}
