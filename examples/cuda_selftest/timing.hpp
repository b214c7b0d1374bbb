#pragma once

/// How fast kernels are: beside the card's own copy, and beside cuBLAS on the same weights in f16.

#include "cublas.hpp"

#include <algorithm>
#include <chrono>
#include <memory>

namespace selftest {

/// Median microseconds of one of `count` calls that are captured into a graph: nothing of the host is in it.
template <class F>
double microseconds(unsigned count, F&& call) {
  const auto on = must(sinq::cuda::stream::make());
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  must(sinq::cuda::check(cudaStreamBeginCapture(on, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture"));
  for (unsigned n = 0; n < count; ++n) call(n, static_cast<cudaStream_t>(on));
  must(sinq::cuda::check(cudaStreamEndCapture(on, &graph), "cudaStreamEndCapture"));
  must(sinq::cuda::check(cudaGraphInstantiate(&ready, graph, 0), "cudaGraphInstantiate"));
  cudaEvent_t begin = nullptr, end = nullptr;
  must(sinq::cuda::check(cudaEventCreate(&begin), "cudaEventCreate"));
  must(sinq::cuda::check(cudaEventCreate(&end), "cudaEventCreate"));
  std::vector<double> times;
  for (int n = 0; n < 12; ++n) {
    must(sinq::cuda::check(cudaEventRecord(begin, on), "cudaEventRecord"));
    must(sinq::cuda::check(cudaGraphLaunch(ready, on), "cudaGraphLaunch"));
    must(sinq::cuda::check(cudaEventRecord(end, on), "cudaEventRecord"));
    must(on.synchronize());
    float milliseconds = 0;
    must(sinq::cuda::check(cudaEventElapsedTime(&milliseconds, begin, end), "cudaEventElapsedTime"));
    if (n >= 2) times.push_back(1000.0 * milliseconds / count);
  }
  static_cast<void>(cudaEventDestroy(begin));
  static_cast<void>(cudaEventDestroy(end));
  static_cast<void>(cudaGraphExecDestroy(ready));
  static_cast<void>(cudaGraphDestroy(graph));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

/// Bytes read and written a second by a copy within the device of 512 MiB, in GB/s.
inline double copy_bandwidth() {
  constexpr std::size_t bytes = std::size_t{512} << 20;
  auto from = must(device_buffer<std::byte>::make(bytes));
  auto to = must(device_buffer<std::byte>::make(bytes));
  must(sinq::cuda::check(cudaMemset(from.data(), 1, bytes), "cudaMemset"));
  const double us = microseconds(4, [&](unsigned, cudaStream_t on) {
    must(sinq::cuda::check(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice, on),
                           "cudaMemcpyAsync"));
  });
  return 2.0 * static_cast<double>(bytes) / us / 1000;
}

/// Copies of one matrix, enough that none is in the cache when its turn comes.
inline unsigned copies_of(std::size_t bytes) {
  constexpr std::size_t beyond_caches = std::size_t{200} << 20;
  return static_cast<unsigned>(std::clamp<std::size_t>(beyond_caches / bytes + 1, 2, 64));
}

/// The largest number of tokens that is timed.
inline constexpr std::size_t most_tokens = 512;

/// One shape on its way through the table.
class timed_shape {
public:
  timed_shape(const weight_options& o, double copy_gbs) : o_{o}, copy_gbs_{copy_gbs} {
    const weight w = random_weight(o, 1, false);
    const unsigned count = copies_of(w.image.weights.size());
    for (unsigned n = 0; n < count; ++n) weights_.push_back(must(device_matrix::upload(w.image)));
    x_ = must(device_buffer<std::uint16_t>::copy_of(random_bits<__half>(most_tokens * o.cols, 2)));
    y_ = must(device_buffer<std::uint16_t>::make(most_tokens * o.rows));
    must(sinq::cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize"));
  }

  [[nodiscard]] double time(std::size_t tokens, matmul_kernel kernel) {
    sinq::cuda::matmul_options<__half> options{.kernel = kernel};
    must(work_.reserve(std::size_t{256} << 20, nullptr));
    return microseconds(repeats(), [&](unsigned n, cudaStream_t on) {
      must(sinq::cuda::matmul(weights_[n % weights_.size()], x(tokens), y(tokens), work_, options, on));
    });
  }
  [[nodiscard]] double time_dequantize() {
    auto to = must(device_buffer<__half>::make(std::size_t{o_.rows} * o_.cols));
    return microseconds(repeats(), [&](unsigned n, cudaStream_t on) {
      must(sinq::cuda::dequantize(weights_[n % weights_.size()], device_view<__half>{to.data(), o_.rows, o_.cols}, on));
    });
  }

  void row(std::size_t tokens, matmul_kernel kernel, double cublas_us) {
    const double us = time(tokens, kernel);
    const double bytes = static_cast<double>(weights_[0].size_bytes()) +
                         2.0 * static_cast<double>(tokens) * (double(o_.rows) + double(o_.cols));
    const double gbs = bytes / us / 1000;
    const double tflops = 2.0 * double(tokens) * double(o_.rows) * double(o_.cols) / us / 1e6;
    std::printf("%-40s %5zu %-12s %9.2f us %8.0f GB/s %5.2f of copy %7.1f TFLOP/s", name_of(o_).c_str(), tokens,
                name_of(kernel), us, gbs, gbs / copy_gbs_, tflops);
    if (cublas_us > 0) std::printf("   cuBLAS f16 %9.2f us, %5.2f times as fast", cublas_us, cublas_us / us);
    std::printf("\n");
    std::fflush(stdout);
  }
  void dequantize_row() {
    const double us = time_dequantize();
    const double gbs = (double(weights_[0].size_bytes()) + 2.0 * double(o_.rows) * double(o_.cols)) / us / 1000;
    std::printf("%-40s       %-12s %9.2f us %8.0f GB/s %5.2f of copy\n", name_of(o_).c_str(), "dequantize", us, gbs,
                gbs / copy_gbs_);
    std::fflush(stdout);
  }

private:
  [[nodiscard]] unsigned repeats() const { return std::max(16u, static_cast<unsigned>(weights_.size())); }
  [[nodiscard]] device_view<const __half> x(std::size_t tokens) const {
    return {reinterpret_cast<const __half*>(x_.data()), tokens, o_.cols};
  }
  [[nodiscard]] device_view<__half> y(std::size_t tokens) {
    return {reinterpret_cast<__half*>(y_.data()), tokens, o_.rows};
  }

  weight_options o_;
  double copy_gbs_;
  std::vector<device_matrix> weights_;
  device_buffer<std::uint16_t> x_, y_;
  workspace work_ = must(workspace::make());
};

/// Milliseconds of a quantization of 4096 x 4096 floats, its wait for the device included.
inline void time_quantize() {
  constexpr std::size_t size = 4096;
  const auto w = must(device_buffer<float>::copy_of(random_floats(size * size, 1, 0.02)));
  auto work = must(workspace::make());
  std::vector<double> times;
  for (int n = 0; n < 5; ++n) {
    const auto begin = std::chrono::steady_clock::now();
    const auto q = must(sinq::cuda::quantize(device_view<const float>{w.data(), size, size}, {}, work));
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  }
  std::sort(times.begin(), times.end());
  std::printf("quantize 4096 x 4096, sinq, 4 bits, groups of 64: %.2f ms\n", times[2]);
}

inline std::vector<matmul_kernel> kernels_for(std::size_t tokens, int compute_capability) {
  if (compute_capability < 80) return {matmul_kernel::gemv};
  if (tokens == 1) return {matmul_kernel::few_tokens, matmul_kernel::gemv};
  if (tokens <= 16) return {matmul_kernel::few_tokens};
  if (tokens <= 32) return {matmul_kernel::few_tokens, matmul_kernel::many_tokens};
  return {matmul_kernel::many_tokens};
}

inline void run_timing(tally&, int compute_capability) {
  const double copy_gbs = copy_bandwidth();
  std::printf("copy within the device: %.0f GB/s\n", copy_gbs);
  time_quantize();
  const std::vector<std::size_t> all_tokens{1, 2, 4, 8, 16, 32, 64, 128, 256, 512};
  for (const auto& [rows, cols] : {std::pair{4096u, 4096u}, {14336u, 4096u}, {4096u, 14336u}}) {
    std::vector<double> cublas_us;
    {
      cublas_gemm cublas{rows, cols};
      for (const std::size_t tokens : all_tokens) cublas_us.push_back(cublas.time(tokens));
    }
    for (const int bits : {4, 2, 3, 8, 0}) {
      const bool all = bits == 4;
      if (!all && (rows != cols)) continue;
      timed_shape shape{{bits == 0 ? 4 : bits, bits == 0, 64, rows, cols}, copy_gbs};
      for (std::size_t n = 0; n < all_tokens.size(); ++n) {
        if (!all && all_tokens[n] != 1 && all_tokens[n] != 8 && all_tokens[n] != 64 && all_tokens[n] != 512) continue;
        for (const matmul_kernel kernel : kernels_for(all_tokens[n], compute_capability))
          shape.row(all_tokens[n], kernel, cublas_us[n]);
      }
      shape.dequantize_row();
    }
  }
}

} // namespace selftest
