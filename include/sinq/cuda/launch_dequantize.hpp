#pragma once

#include "dequantize.cuh"
#include "device_matrix.hpp"

namespace sinq::cuda {

namespace detail {

/// The tag of a 16-bit type of CUDA.
template <class T>
struct float_tag_of;
template <>
struct float_tag_of<__half> {
  using type = f16;
};
template <>
struct float_tag_of<__nv_bfloat16> {
  using type = bf16;
};
template <class T>
using float_tag = typename float_tag_of<T>::type;

template <class T>
inline constexpr kernels::output_type output_type_of = std::is_same_v<T, float>
                                                           ? kernels::output_type::f32
                                                           : (std::is_same_v<T, __half> ? kernels::output_type::f16
                                                                                        : kernels::output_type::bf16);

/// Calls f with a form as a constant.
template <class F>
auto with_form(code_form form, F&& f) {
  switch (form) {
  case code_form::u2: return f(std::integral_constant<code_form, code_form::u2>{});
  case code_form::u3: return f(std::integral_constant<code_form, code_form::u3>{});
  case code_form::u8: return f(std::integral_constant<code_form, code_form::u8>{});
  case code_form::table4: return f(std::integral_constant<code_form, code_form::table4>{});
  case code_form::u4: break;
  }
  return f(std::integral_constant<code_form, code_form::u4>{});
}

} // namespace detail

/// Writes the weights that a quantized weight stands for, on the device, in the order of the stream.
/// V[i][j] = (s (level - z)) t in f32, rounded after each operation as sinq::dequantize does it, then to T
/// @param to  [N x K] of __half, __nv_bfloat16 or float
/// @errors    errc::invalid_argument (shape), errc::device
template <class T>
[[nodiscard]] result<void> dequantize(const device_matrix& w, device_view<T> to, cudaStream_t on = nullptr) {
  const device_format& f = w.format();
  if (to.rows != f.rows || to.cols != f.cols)
    return make_error(errc::invalid_argument, "cuda::dequantize: into ", to.rows, " x ", to.cols, ", expected ", f.rows,
                      " x ", f.cols);
  constexpr unsigned units = 4, most_tiles = 65535;
  if (f.tiles() > most_tiles)
    return make_error(errc::unsupported, "cuda::dequantize: ", f.rows, " rows, expected at most ",
                      most_tiles * tile_rows);
  const kernels::dequantize_args args{
      f,         w.weights().data(),           w.levels().data(), w.t().data(), w.unit().data(), to.data,
      to.stride, to.is_aligned(16 / sizeof(T))};
  const detail::launch_shape shape{{(f.units() + units - 1) / units, f.tiles()}, 32 * units};
  return detail::with_form(f.form, [&](auto form) {
    return detail::launch(kernels::dequantize<form(), detail::output_type_of<T>>, shape, args, on);
  });
}

} // namespace sinq::cuda
