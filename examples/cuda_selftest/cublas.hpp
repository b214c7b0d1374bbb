#pragma once

/// cuBLAS as the caller's own GEMM, and as what kernels are compared with.

#include "checks.hpp"

#include <cublas_v2.h>

#include <memory>

namespace selftest {

/// Microseconds of one of `count` captured calls: timing.hpp.
template <class F>
double microseconds(unsigned count, F&& call);
unsigned copies_of(std::size_t bytes);

inline sinq::result<void> check_cublas(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return {};
  return sinq::make_error(sinq::errc::device, call, ": ", cublasGetStatusString(status));
}

/// A handle, destroyed with this object.
class cublas_handle {
public:
  cublas_handle() { must(check_cublas(cublasCreate(&handle_), "cublasCreate")); }
  cublas_handle(const cublas_handle&) = delete;
  cublas_handle& operator=(const cublas_handle&) = delete;
  ~cublas_handle() { static_cast<void>(cublasDestroy(handle_)); }

  /// y = x w^T in f16 with f32 sums. cuBLAS stores by columns, so it sees y^T = w x^T.
  template <class Out>
  [[nodiscard]] sinq::result<void> multiply(const sinq::cuda::dense_product<__half, Out>& p) const {
    if (sinq::result<void> ok = check_cublas(cublasSetStream(handle_, p.stream), "cublasSetStream"); !ok) return ok;
    const float one = 1, none = 0;
    constexpr cudaDataType_t out = std::is_same_v<Out, float> ? CUDA_R_32F : CUDA_R_16F;
    return check_cublas(cublasGemmEx(handle_, CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(p.w.rows),
                                     static_cast<int>(p.x.rows), static_cast<int>(p.w.cols), &one, p.w.data, CUDA_R_16F,
                                     static_cast<int>(p.w.stride), p.x.data, CUDA_R_16F, static_cast<int>(p.x.stride),
                                     &none, p.y.data, out, static_cast<int>(p.y.stride), CUBLAS_COMPUTE_32F,
                                     CUBLAS_GEMM_DEFAULT),
                        "cublasGemmEx");
  }

private:
  cublasHandle_t handle_ = nullptr;
};

/// cuBLAS on weights in f16, out of the cache.
class cublas_gemm {
public:
  cublas_gemm(unsigned rows, unsigned cols) : rows_{rows}, cols_{cols} {
    const std::size_t bytes = std::size_t{rows} * cols * 2;
    for (unsigned n = 0; n < copies_of(bytes); ++n) {
      weights_.push_back(must(device_buffer<std::uint16_t>::make(bytes / 2)));
      must(sinq::cuda::check(cudaMemset(weights_.back().data(), 0x11, bytes), "cudaMemset"));
    }
    constexpr std::size_t most_tokens = 512;
    x_ = must(device_buffer<std::uint16_t>::make(most_tokens * cols));
    y_ = must(device_buffer<std::uint16_t>::make(most_tokens * rows));
    must(sinq::cuda::check(cudaMemset(x_.data(), 0x22, x_.size() * 2), "cudaMemset"));
  }

  [[nodiscard]] double time(std::size_t tokens) {
    const auto call = [&](unsigned n, cudaStream_t on) {
      const auto* const w = reinterpret_cast<const __half*>(weights_[n % weights_.size()].data());
      must(handle_.multiply<__half>({{w, rows_, cols_},
                                     {reinterpret_cast<const __half*>(x_.data()), tokens, cols_},
                                     {reinterpret_cast<__half*>(y_.data()), tokens, rows_},
                                     nullptr,
                                     on}));
    };
    return microseconds(std::max(16u, static_cast<unsigned>(weights_.size())), call);
  }

private:
  unsigned rows_, cols_;
  cublas_handle handle_;
  std::vector<device_buffer<std::uint16_t>> weights_;
  device_buffer<std::uint16_t> x_, y_;
};

/// A weight that is dequantized and multiplied by cuBLAS.
inline void check_callback(tally& t, const weight_options& o, std::size_t tokens) {
  const weight w = random_weight(o, 9, true);
  const auto x = random_bits<__half>(tokens * o.cols, 4);
  const auto on_device = must(device_matrix::upload(w.image));
  const auto x_on_device = must(device_buffer<std::uint16_t>::copy_of(x));
  auto y = must(device_buffer<float>::make(tokens * o.rows));
  auto work = must(workspace::make());
  const cublas_handle handle;
  sinq::cuda::matmul_options<__half, float> options;
  options.gemm_tokens = tokens;
  options.gemm = [&](const sinq::cuda::dense_product<__half, float>& p) { return handle.multiply(p); };
  must(sinq::cuda::matmul(
      on_device, device_view<const __half>{reinterpret_cast<const __half*>(x_on_device.data()), tokens, o.cols},
      device_view<float>{y.data(), tokens, o.rows}, work, options));
  const auto got = to_host(y);
  double worst = 0;
  for (std::size_t m = 0; m < tokens; ++m)
    for (std::size_t i = 0; i < o.rows; ++i) {
      double sum = 0, size = 0;
      for (std::size_t j = 0; j < o.cols; ++j) {
        const double term = double{w.dense[i * o.cols + j]} * double{from_bits(x[m * o.cols + j], false)};
        sum += term;
        size += std::fabs(term);
      }
      const double error = std::fabs(double{got[m * o.rows + i]} - sum) / size;
      worst = error <= worst ? worst : std::isfinite(error) ? error : HUGE_VAL;
    }
  t.at_most("dequantize, then cuBLAS: " + name_of(o) + ", " + std::to_string(tokens) + " tokens", worst, 0x1p-11);
}

} // namespace selftest
