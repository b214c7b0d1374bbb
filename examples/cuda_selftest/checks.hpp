#pragma once

/// Every primitive and every kernel beside the CPU.

#include "host.hpp"

#include <sinq/cuda.hpp>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace selftest {

using sinq::cuda::device_buffer;
using sinq::cuda::device_matrix;
using sinq::cuda::device_view;
using sinq::cuda::matmul_kernel;
using sinq::cuda::workspace;

/// What passed and what did not, one line each.
struct tally {
  int passed = 0;
  int failed = 0;

  void line(bool ok, const std::string& what, double error, double limit) {
    ++(ok ? passed : failed);
    std::printf("%s  %-72s error %.2e of %.0e\n", ok ? "pass" : "FAIL", what.c_str(), error, limit);
    std::fflush(stdout);
  }
  void at_most(const std::string& what, double error, double limit) { line(error <= limit, what, error, limit); }
};

/// What is in a result; nothing in it ends the program, because all that follows would fail too.
template <class T>
T must(sinq::result<T> outcome) {
  if (outcome) return *std::move(outcome);
  std::printf("FAIL  %s\n", outcome.error().message.c_str());
  std::exit(1);
}
inline void must(const sinq::result<void>& outcome) {
  if (outcome) return;
  std::printf("FAIL  %s\n", outcome.error().message.c_str());
  std::exit(1);
}

template <class T>
std::vector<T> to_host(const device_buffer<T>& from) {
  std::vector<T> to(from.size());
  must(from.download(to));
  must(sinq::cuda::check(cudaStreamSynchronize(nullptr), "cudaStreamSynchronize"));
  return to;
}

template <class T>
inline constexpr bool is_bf16 = std::is_same_v<T, __nv_bfloat16>;

template <class T>
std::vector<std::uint16_t> random_bits(std::size_t count, std::uint64_t seed, double size = 1) {
  std::vector<std::uint16_t> bits;
  for (const float value : random_floats(count, seed, size)) bits.push_back(to_bits(value, is_bf16<T>));
  return bits;
}

inline std::string name_of(const weight_options& o) {
  return std::string{o.nf4 ? "nf4" : "u" + std::to_string(o.bits)} + " groups of " + std::to_string(o.group_size) +
         ", " + std::to_string(o.rows) + " x " + std::to_string(o.cols);
}

inline const char* name_of(matmul_kernel kernel) {
  switch (kernel) {
  case matmul_kernel::gemv: return "gemv";
  case matmul_kernel::few_tokens: return "few_tokens";
  case matmul_kernel::many_tokens: return "many_tokens";
  case matmul_kernel::dense: return "dense";
  case matmul_kernel::automatic: break;
  }
  return "automatic";
}

/// y of a kernel in f32, as often as asked for.
template <class T>
std::vector<std::vector<float>> multiply(const device_matrix& w, const std::vector<std::uint16_t>& x,
                                         std::size_t tokens, const std::vector<float>& bias, matmul_kernel kernel,
                                         int times) {
  const auto on_device = must(device_buffer<std::uint16_t>::copy_of(x));
  const auto bias_on_device = must(device_buffer<float>::copy_of(bias));
  auto y = must(device_buffer<float>::make(tokens * w.rows()));
  auto work = must(workspace::make());
  sinq::cuda::matmul_options<T, float> options{.bias = bias_on_device.data(), .kernel = kernel};
  const device_view<const T> from{reinterpret_cast<const T*>(on_device.data()), tokens, w.cols()};
  std::vector<std::vector<float>> results;
  for (int n = 0; n < times; ++n) {
    must(sinq::cuda::check(cudaMemsetAsync(y.data(), 0xff, y.size() * sizeof(float), nullptr), "cudaMemsetAsync"));
    must(sinq::cuda::matmul(w, from, device_view<float>{y.data(), tokens, w.rows()}, work, options));
    results.push_back(to_host(y));
  }
  return results;
}

/// A kernel's y beside f64, and once more beside itself.
template <class T>
void check_matmul(tally& t, const weight_options& o, std::size_t tokens, matmul_kernel kernel, double size = 1) {
  const weight w = random_weight(o, o.rows + 7 * o.cols, false);
  const auto x = random_bits<T>(tokens * o.cols, tokens, size);
  const auto bias = random_floats(o.rows, 3);
  const auto on_device = must(device_matrix::upload(w.image));
  const auto y = multiply<T>(on_device, x, tokens, bias, kernel, 2);
  const unsigned step = std::size_t{o.rows} * o.cols * tokens > 20'000'000 ? 61 : 1;
  const double error = worst_error(w.image, x, is_bf16<T>, tokens, bias, y[0], step, kernel == matmul_kernel::gemv);
  const std::string what = std::string{name_of(kernel)} + (is_bf16<T> ? " bf16 " : " f16 ") + name_of(o) + ", " +
                           std::to_string(tokens) + " tokens";
  t.at_most(what, error, is_bf16<T> ? 1e-5 : 2e-6);
  if (y[0] != y[1]) t.line(false, what + ": not the same bits again", 1, 0);
}

template <class Out>
void check_dequantize(tally& t, const weight_options& o) {
  const weight w = random_weight(o, 11, true);
  const auto on_device = must(device_matrix::upload(w.image));
  auto out = must(device_buffer<Out>::make(std::size_t{o.rows} * o.cols));
  must(sinq::cuda::dequantize(on_device, device_view<Out>{out.data(), o.rows, o.cols}));
  const std::vector<Out> values = to_host(out);
  std::size_t different = 0;
  for (std::size_t n = 0; n < values.size(); ++n) {
    if constexpr (std::is_same_v<Out, float>) {
      different += values[n] != w.dense[n];
    } else {
      std::uint16_t bits;
      std::memcpy(&bits, &values[n], sizeof bits);
      different += bits != to_bits(w.dense[n], is_bf16<Out>);
    }
  }
  const char* type = std::is_same_v<Out, float> ? "f32 " : is_bf16<Out> ? "bf16 " : "f16 ";
  t.at_most(std::string{"dequantize to "} + type + name_of(o) + ": weights that differ", double(different), 0);
}

/// A weight that is quantized on both sides: bytes that differ.
inline void check_quantize(tally& t, const quantized_options& o) {
  const std::vector<float> w = random_floats(std::size_t{o.rows} * o.cols, 21, 0.02);
  const sinq::cuda::device_image expected = quantized_on_cpu(w, o);
  const auto on_device = must(device_buffer<float>::copy_of(w));
  auto work = must(workspace::make());
  const sinq::cuda::quantize_options options{.balance = o.balance,
                                             .grid = o.nf4 ? sinq::grid::nf4 : sinq::grid::uniform,
                                             .bits = o.bits,
                                             .group_size = o.group_size,
                                             .symmetric = o.symmetric};
  const device_view<const float> view{on_device.data(), o.rows, o.cols};
  const auto image = must(must(sinq::cuda::quantize(view, options, work)).download());
  std::size_t different = 0;
  for (std::size_t n = 0; n < image.weights.size(); ++n) different += image.weights[n] != expected.weights[n];
  for (std::size_t n = 0; n < image.t.size(); ++n) different += image.t[n] != expected.t[n];
  for (std::size_t n = 0; n < image.unit.size(); ++n) different += image.unit[n] != expected.unit[n];
  const weight_options as{o.bits, o.nf4, o.group_size, o.rows, o.cols};
  t.at_most(std::string{"quantize "} + (o.balance ? "sinq " : "rtn ") + (o.symmetric ? "symmetric " : "") +
                name_of(as) + ": bytes that differ",
            double(different), 0);
}

inline std::vector<weight_options> all_formats(unsigned rows, unsigned cols) {
  std::vector<weight_options> all;
  for (const unsigned group_size : {32u, 64u, 128u})
    for (const int bits : {2, 3, 4, 8, 0}) all.push_back({bits == 0 ? 4 : bits, bits == 0, group_size, rows, cols});
  return all;
}

inline void check_kernel(tally& t, matmul_kernel kernel, std::size_t few, std::size_t many) {
  for (const weight_options& o : all_formats(200, 1300)) {
    check_matmul<__half>(t, o, few, kernel);
    check_matmul<__nv_bfloat16>(t, o, many, kernel);
  }
}

} // namespace selftest
