#pragma once

#include "activations.cuh"
#include "device_matrix.hpp"
#include "few_tokens.cuh"
#include "gemv.cuh"
#include "launch_dequantize.hpp"
#include "many_tokens.cuh"
#include "plan.hpp"

#include <functional>
#include <limits>

namespace sinq::cuda {

/// A multiplication of floats, for the caller's own GEMM: y = x w^T + bias, in the order of the stream.
template <class T, class Out>
struct dense_product {
  device_view<const T> w; ///< [N x K]
  device_view<const T> x; ///< [M x K]
  device_view<Out> y;     ///< [M x N], to be written
  const float* bias;      ///< [N] on the device, or null
  cudaStream_t stream;
};

/// How cuda::matmul works.
template <class T, class Out = T>
struct matmul_options {
  const float* bias = nullptr; ///< [N] on the device, or null
  matmul_kernel kernel = matmul_kernel::automatic;
  /// From so many tokens on, the weight is dequantized to T and `gemm` is called; never where there is no gemm.
  std::size_t gemm_tokens = 128;
  std::function<result<void>(const dense_product<T, Out>&)> gemm{};
};

namespace detail {

/// One call of matmul.
template <class T, class Out>
class matmul_call {
  using float_type = float_tag<T>;
  using options_type = matmul_options<T, Out>;

public:
  matmul_call(const device_matrix& w, device_view<const T> x, device_view<Out> y, const options_type& o,
              workspace& work, cudaStream_t on)
      : w_{w}, f_{w.format()}, x_{x}, y_{y}, o_{o}, work_{work}, on_{on}, tokens_{static_cast<unsigned>(x.rows)} {}

  [[nodiscard]] result<void> operator()() {
    if (result<void> ok = check_shapes(); !ok) return ok;
    if (tokens_ == 0) return {};
    const bool dense = o_.kernel == matmul_kernel::dense ||
                       (o_.kernel == matmul_kernel::automatic && o_.gemm && tokens_ >= o_.gemm_tokens);
    if (dense) return multiply_dense();
    const result<matmul_plan> plan = make_plan();
    if (!plan) return plan.error();
    if (result<void> ok = prepare(*plan); !ok) return ok;
    if (result<void> ok = multiply(*plan); !ok) return ok;
    if (plan->splits == 1) return {};
    return launch(kernels::add_splits<>, {dim3{ceil_div(f_.rows, 256), tokens_}, 256, 0, overlaps()}, args_, on_);
  }

private:
  [[nodiscard]] result<void> check_shapes() const {
    if (x_.cols != f_.cols || y_.rows != x_.rows || y_.cols != f_.rows)
      return make_error(errc::invalid_argument, "cuda::matmul: x is ", x_.rows, " x ", x_.cols, " and y ", y_.rows,
                        " x ", y_.cols, ", expected M x ", f_.cols, " and M x ", f_.rows);
    constexpr std::size_t most_tokens = 65535;
    if (x_.rows > most_tokens)
      return make_error(errc::invalid_argument, "cuda::matmul: ", x_.rows, " tokens, expected at most ", most_tokens);
    return {};
  }

  [[nodiscard]] result<matmul_plan> make_plan() const {
    const device_info& device = work_.device();
    matmul_kernel kernel = o_.kernel;
    const bool tensor_cores = device.compute_capability >= 80;
    if (kernel == matmul_kernel::automatic)
      kernel = !tensor_cores   ? matmul_kernel::gemv
               : tokens_ <= 32 ? matmul_kernel::few_tokens
                               : matmul_kernel::many_tokens;
    if (kernel == matmul_kernel::gemv) return plan_gemv(f_, tokens_, device);
    if (!tensor_cores)
      return make_error(errc::unsupported, "cuda::matmul: sm_", device.compute_capability, ", the kernel needs sm_80");
    constexpr unsigned few = 4 * token_tile;
    if (kernel == matmul_kernel::few_tokens && tokens_ > few)
      return make_error(errc::invalid_argument, "cuda::matmul: ", tokens_, " tokens, the kernel takes ", few);
    return kernel == matmul_kernel::few_tokens ? plan_few_tokens(f_, tokens_, device)
                                               : plan_many_tokens(f_, tokens_, device);
  }

  /// Makes room in the workspace, and x'.
  [[nodiscard]] result<void> prepare(const matmul_plan& plan) {
    const unsigned tiles = ceil_div(tokens_, token_tile);
    const std::size_t activations = std::size_t{f_.units()} * tiles * activation_bytes(f_);
    const std::size_t partial = plan.splits > 1 ? std::size_t{plan.splits} * tokens_ * f_.rows * sizeof(float) : 0;
    if (result<void> ok = work_.reserve(activations + partial, on_); !ok) return ok;
    args_ = {.format = f_,
             .weights = w_.weights().data(),
             .levels = w_.levels().data(),
             .activations = reinterpret_cast<const unsigned char*>(work_.data()),
             .tokens = tokens_,
             .stages = plan.stages,
             .splits = plan.splits,
             .bias = o_.bias,
             .partial = reinterpret_cast<float*>(work_.data() + activations),
             .y = y_.data,
             .stride = y_.stride,
             .type = output_type_of<Out>};
    const kernels::activation_args from{f_,
                                        reinterpret_cast<const std::uint16_t*>(x_.data),
                                        x_.stride,
                                        tokens_,
                                        x_.is_aligned(8),
                                        w_.t().data(),
                                        w_.unit().data(),
                                        reinterpret_cast<unsigned char*>(work_.data())};
    return launch(kernels::prepare_activations<float_type>, {dim3{f_.units(), tiles}, 128, 0, overlaps()}, from, on_);
  }

  [[nodiscard]] result<void> multiply(const matmul_plan& plan) const {
    return with_form(f_.form, [&](auto form) {
      switch (plan.kernel) {
      case matmul_kernel::few_tokens: return few_tokens<form()>(plan);
      case matmul_kernel::many_tokens: return many_tokens<form()>(plan);
      default: return gemv<form()>(plan);
      }
    });
  }

  template <code_form Form>
  [[nodiscard]] result<void> gemv(const matmul_plan& plan) const {
    const launch_shape shape{{plan.blocks, ceil_div(tokens_, plan.gemv_tokens), plan.splits},
                             32 * plan.warps,
                             plan.shared_bytes,
                             overlaps()};
    switch (plan.gemv_tokens) {
    case 1: return launch(kernels::gemv<Form, float_type, 1>, shape, args_, on_);
    case 4: return launch(kernels::gemv<Form, float_type, 4>, shape, args_, on_);
    default: return launch(kernels::gemv<Form, float_type, 8>, shape, args_, on_);
    }
  }

  template <code_form Form>
  [[nodiscard]] result<void> few_tokens(const matmul_plan& plan) const {
    const launch_shape shape{{plan.blocks, plan.splits}, 32 * plan.warps, plan.shared_bytes, overlaps()};
    switch (plan.token_tiles) {
    case 2: return launch(kernels::few_tokens<Form, float_type, 2, 2>, shape, args_, on_);
    case 4: return launch(kernels::few_tokens<Form, float_type, 2, 4>, shape, args_, on_);
    default: break;
    }
    if (plan.tiles == 1) return launch(kernels::few_tokens<Form, float_type, 1, 1>, shape, args_, on_);
    return launch(kernels::few_tokens<Form, float_type, 2, 1>, shape, args_, on_);
  }

  template <code_form Form>
  [[nodiscard]] result<void> many_tokens(const matmul_plan& plan) const {
    const launch_shape shape{{plan.blocks, ceil_div(tokens_, plan.token_tiles * token_tile), plan.splits},
                             32 * plan.warps,
                             plan.shared_bytes,
                             overlaps()};
    return launch(kernels::many_tokens<Form, float_type, 2, 8, 1>, shape, args_, on_);
  }

  [[nodiscard]] result<void> multiply_dense() {
    if (!o_.gemm) return make_error(errc::invalid_argument, "cuda::matmul: matmul_kernel::dense without a gemm");
    const std::size_t stride = std::size_t{ceil_div(f_.cols, 8)} * 8;
    if (result<void> ok = work_.reserve(f_.rows * stride * sizeof(T), on_); !ok) return ok;
    const device_view<T> dense{reinterpret_cast<T*>(work_.data()), f_.rows, f_.cols, stride};
    if (result<void> ok = dequantize(w_, dense, on_); !ok) return ok;
    return o_.gemm({dense, x_, y_, o_.bias, on_});
  }

  [[nodiscard]] bool overlaps() const { return work_.device().compute_capability >= 90; }

  const device_matrix& w_;
  const device_format& f_;
  device_view<const T> x_;
  device_view<Out> y_;
  const options_type& o_;
  workspace& work_;
  cudaStream_t on_;
  unsigned tokens_;
  kernels::matmul_args args_{};
};

} // namespace detail

/// Multiplies activations by a quantized weight, on the device, in the order of the stream.
/// y = x W^T + bias,  y[m][i] = sum_g s[i][g] sum_{j in g} (level[code[i][j]] - z[i][g]) t[j] x[m][j] + bias[i]
/// @param x     [M x K] of __half or __nv_bfloat16
/// @param y     [M x N] of __half, __nv_bfloat16 or float, written; no part of x
/// @param work  memory for x' and partial sums: calls that share it must be on one stream
/// @errors  errc::invalid_argument (shapes), errc::unsupported (a kernel that the device does not have), errc::device,
///          those of options.gemm
/// Numerics: x' = x t is rounded to the type of x (2^-11 or 2^-8 of each product at most), levels of a codebook too;
/// all else is f32: |error| <= 2e-6 sum |s (|level| + |z|) x'| besides, 1e-5 with bfloat16. Sums have one order, so
/// that results are the same bits each time.
template <class X, class Out>
[[nodiscard]] result<void> matmul(const device_matrix& w, device_view<X> x, device_view<Out> y, workspace& work,
                                  const matmul_options<std::remove_const_t<X>, Out>& options,
                                  cudaStream_t on = nullptr) {
  return detail::matmul_call<std::remove_const_t<X>, Out>{w, x, y, options, work, on}();
}
template <class X, class Out>
[[nodiscard]] result<void> matmul(const device_matrix& w, device_view<X> x, device_view<Out> y, workspace& work,
                                  cudaStream_t on = nullptr) {
  return matmul(w, x, y, work, matmul_options<std::remove_const_t<X>, Out>{}, on);
}

} // namespace sinq::cuda
