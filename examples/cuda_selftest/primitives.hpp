#pragma once

/// The instructions that kernels are built from, each beside what it is said to do.

#include "checks.hpp"

namespace selftest {

namespace kernels {

namespace ptx = sinq::cuda::ptx;

/// D = A B + C of small whole numbers, one warp; row-major.
template <class Float>
__global__ void mma(const float* a, const float* b, const float* c, float* d) {
  const unsigned lane = threadIdx.x, g = lane / 4, p = lane % 4;
  std::uint32_t fragment[4];
  for (unsigned i = 0; i < 4; ++i) {
    const float* const from = a + (g + i % 2 * 8) * 16 + 2 * p + i / 2 * 8;
    fragment[i] = ptx::from_floats(Float{}, from[0], from[1]);
  }
  std::uint32_t of_b[2];
  for (unsigned i = 0; i < 2; ++i)
    of_b[i] = ptx::from_floats(Float{}, b[(2 * p + 8 * i) * 8 + g], b[(2 * p + 8 * i + 1) * 8 + g]);
  float sum[4];
  for (unsigned i = 0; i < 4; ++i) sum[i] = c[(g + i / 2 * 8) * 8 + 2 * p + i % 2];
  ptx::mma_m16n8k16(Float{}, sum, fragment, of_b[0], of_b[1], sum);
  for (unsigned i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * p + i % 2] = sum[i];
}

/// Copies 2 x 128 words through shared memory; every third 16 bytes are zeros.
__global__ void copy(const std::uint32_t* from, std::uint32_t* to) {
  SINQ_SHARED(uint4, buffer, 64);
  for (unsigned k = 0; k < 2; ++k) {
    ptx::copy_async16(buffer + k * 32 + threadIdx.x, from + 4 * (k * 32 + threadIdx.x), threadIdx.x % 3 != 0);
    ptx::copy_async_commit();
  }
  ptx::copy_async_wait<1>();
  reinterpret_cast<uint4*>(to)[threadIdx.x] = buffer[threadIdx.x];
  ptx::copy_async_wait<0>();
  reinterpret_cast<uint4*>(to)[32 + threadIdx.x] = buffer[32 + threadIdx.x];
}

/// Floats of all 65536 patterns, and 16 bits of many floats.
template <class Float>
__global__ void convert(float* values, const float* floats, std::uint16_t* bits) {
  const unsigned n = blockIdx.x * blockDim.x + threadIdx.x;
  values[n] = ptx::to_float(Float{}, static_cast<std::uint16_t>(n));
  bits[n] = ptx::from_float(Float{}, floats[n]);
}

/// a & b | c, and pairs of 16-bit floats less pairs.
template <class Float>
__global__ void words(const std::uint32_t* in, std::uint32_t* out) {
  const unsigned n = threadIdx.x;
  out[2 * n] = ptx::and_or(in[3 * n], in[3 * n + 1], in[3 * n + 2]);
  const std::uint32_t a = ptx::from_floats(Float{}, static_cast<float>(n % 128 + 128), static_cast<float>(n / 2));
  const std::uint32_t b = ptx::from_floats(Float{}, 128.0f, static_cast<float>(n / 2 % 64));
  out[2 * n + 1] = ptx::subtract(Float{}, a, b);
}

} // namespace kernels

template <class Float>
void check_mma(tally& t, const char* name) {
  std::vector<float> a(256), b(128), c(128);
  for (std::size_t n = 0; n < 256; ++n) a[n] = static_cast<float>(n * 7 % 31) - 15;
  for (std::size_t n = 0; n < 128; ++n) b[n] = static_cast<float>(n * 5 % 23) - 11, c[n] = static_cast<float>(n);
  const auto da = must(device_buffer<float>::copy_of(a)), db = must(device_buffer<float>::copy_of(b));
  const auto dc = must(device_buffer<float>::copy_of(c));
  auto dd = must(device_buffer<float>::make(128));
  kernels::mma<Float><<<1, 32>>>(da.data(), db.data(), dc.data(), dd.data());
  must(sinq::cuda::check(cudaGetLastError(), "mma"));
  const auto d = to_host(dd);
  double wrong = 0;
  for (std::size_t i = 0; i < 16; ++i)
    for (std::size_t j = 0; j < 8; ++j) {
      float sum = c[i * 8 + j];
      for (std::size_t k = 0; k < 16; ++k) sum += a[i * 16 + k] * b[k * 8 + j];
      wrong += d[i * 8 + j] != sum;
    }
  t.at_most(std::string{"mma.m16n8k16 "} + name + ": entries that differ", wrong, 0);
}

inline void check_copy(tally& t) {
  std::vector<std::uint32_t> from(256);
  for (std::size_t n = 0; n < from.size(); ++n) from[n] = static_cast<std::uint32_t>(n * 2654435761u);
  const auto on_device = must(device_buffer<std::uint32_t>::copy_of(from));
  auto to = must(device_buffer<std::uint32_t>::make(256));
  kernels::copy<<<1, 32>>>(on_device.data(), to.data());
  must(sinq::cuda::check(cudaGetLastError(), "copy"));
  const auto got = to_host(to);
  double wrong = 0;
  for (std::size_t n = 0; n < 256; ++n) wrong += got[n] != (n / 4 % 32 % 3 != 0 ? from[n] : 0u);
  t.at_most("cp.async: words that differ", wrong, 0);
}

template <class Float>
void check_numbers(tally& t, const char* name, bool bf16) {
  constexpr unsigned count = 65536;
  std::vector<float> floats = random_floats(count, 5, 1);
  for (std::size_t n = 0; n < count; ++n) floats[n] = std::ldexp(floats[n], static_cast<int>(n % 60) - 40);
  const auto on_device = must(device_buffer<float>::copy_of(floats));
  auto values = must(device_buffer<float>::make(count));
  auto bits = must(device_buffer<std::uint16_t>::make(count));
  kernels::convert<Float><<<count / 256, 256>>>(values.data(), on_device.data(), bits.data());
  must(sinq::cuda::check(cudaGetLastError(), "convert"));
  const auto got_values = to_host(values);
  const auto got_bits = to_host(bits);
  double wrong = 0;
  for (unsigned n = 0; n < count; ++n) {
    const float expected = from_bits(static_cast<std::uint16_t>(n), bf16);
    wrong += std::isnan(expected) ? !std::isnan(got_values[n]) : got_values[n] != expected;
    wrong += got_bits[n] != to_bits(floats[n], bf16);
  }
  t.at_most(std::string{"conversions of "} + name + ": numbers that differ", wrong, 0);

  constexpr unsigned threads = 256;
  std::vector<std::uint32_t> in(3 * threads);
  for (std::size_t n = 0; n < in.size(); ++n) in[n] = static_cast<std::uint32_t>((n + 1) * 2246822519u);
  const auto in_on_device = must(device_buffer<std::uint32_t>::copy_of(in));
  auto out = must(device_buffer<std::uint32_t>::make(2 * threads));
  kernels::words<Float><<<1, threads>>>(in_on_device.data(), out.data());
  must(sinq::cuda::check(cudaGetLastError(), "words"));
  const auto got = to_host(out);
  wrong = 0;
  for (unsigned n = 0; n < threads; ++n) {
    wrong += got[2 * n] != ((in[3 * n] & in[3 * n + 1]) | in[3 * n + 2]);
    wrong += from_bits(static_cast<std::uint16_t>(got[2 * n + 1]), bf16) != static_cast<float>(n % 128);
    wrong += from_bits(static_cast<std::uint16_t>(got[2 * n + 1] >> 16), bf16) !=
             static_cast<float>(n / 2) - static_cast<float>(n / 2 % 64);
  }
  t.at_most(std::string{"lop3, and pairs of "} + name + ": words that differ", wrong, 0);
}

inline void check_primitives(tally& t, int compute_capability) {
  check_copy(t);
  check_numbers<sinq::cuda::f16>(t, "f16", false);
  check_numbers<sinq::cuda::bf16>(t, "bf16", true);
  if (compute_capability < 80) return;
  check_mma<sinq::cuda::f16>(t, "f16");
  check_mma<sinq::cuda::bf16>(t, "bf16");
}

} // namespace selftest
