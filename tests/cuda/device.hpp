#pragma once

/// Weights, activations and the multiplication of both by the emulated device, with what f64 makes of them.

#include "support/outcome.hpp"
#include "support/random_quantized.hpp"

#include <sinq/cuda.hpp>
#include <sinq/cuda/convert.hpp>
#include <sinq/pack/dequantize.hpp>
#include <sinq/pack/pack.hpp>

#include <cmath>
#include <span>
#include <vector>

namespace sinq_test {

using sinq::cuda::code_form;

/// Makes the emulated device another one until the end of a scope.
class scoped_device {
public:
  scoped_device(int compute_capability, int multiprocessors) {
    sinq_emulation::device().compute_capability = compute_capability;
    sinq_emulation::device().multiprocessors = multiprocessors;
  }
  scoped_device(const scoped_device&) = delete;
  scoped_device& operator=(const scoped_device&) = delete;
  ~scoped_device() {
    const sinq_emulation::device_state usual;
    sinq_emulation::device().compute_capability = usual.compute_capability;
    sinq_emulation::device().multiprocessors = usual.multiprocessors;
  }
};

/// A weight with random codes, scales, zero points, fractional ones among them, and a t from e^-reach to e^reach.
[[nodiscard]] inline sinq::packed_matrix random_weight(sinq::matrix_format format, std::uint64_t seed,
                                                       double reach = 1) {
  format.has_col_scale = true;
  format.col_scale_type = sinq::dtype::f32;
  sinq::quantized_matrix q = random_quantized(format, seed);
  random_source random{seed + 1};
  for (float& t : q.col_scale) t = static_cast<float>(std::exp(reach * (2 * random.uniform() - 1)));
  return value_of(sinq::pack(q));
}

/// Random activations of a type of CUDA.
template <class T>
[[nodiscard]] std::vector<T> random_activations(std::size_t count, std::uint64_t seed, double size = 1) {
  random_source random{seed};
  std::vector<T> x(count);
  for (T& value : x) {
    const auto number = static_cast<float>(size * random.normal());
    value = sinq::cuda::ptx::bit_cast<T>(sinq::cuda::ptx::from_float(sinq::cuda::detail::float_tag<T>{}, number));
  }
  return x;
}

/// A 16-bit float, or a float, as f64.
template <class T>
[[nodiscard]] double as_double(T value) {
  if constexpr (std::is_same_v<T, float>)
    return value;
  else
    return sinq::cuda::ptx::to_float(sinq::cuda::detail::float_tag<T>{},
                                     sinq::cuda::ptx::bit_cast<std::uint16_t>(value));
}
/// A number as T holds it.
template <class T>
[[nodiscard]] double as_held(float value) {
  if constexpr (std::is_same_v<T, float>)
    return value;
  else
    return as_double(
        sinq::cuda::ptx::bit_cast<T>(sinq::cuda::ptx::from_float(sinq::cuda::detail::float_tag<T>{}, value)));
}

/// What a multiplication should give, in f64.
struct expected_products {
  std::vector<double> y;    ///< [tokens x rows]
  std::vector<double> size; ///< sum of the magnitudes of all that is added up
};

/// y = sum_g s unit (sum level x' - z sum x') + bias, with x' and levels rounded as they are multiplied.
/// @param f16_levels  whether levels are rounded to f16, not to T
template <class T>
[[nodiscard]] expected_products multiply_in_f64(const sinq::packed_matrix& p, const sinq::cuda::device_image& image,
                                                std::span<const T> x, std::size_t tokens, std::span<const float> bias,
                                                bool f16_levels) {
  const sinq::matrix_format& f = p.format;
  const sinq::quantized_matrix q = sinq::unpack(p);
  std::vector<double> levels, prepared(tokens * f.cols);
  for (const float level : q.levels()) levels.push_back(f16_levels ? as_held<__half>(level) : as_held<T>(level));
  for (std::size_t n = 0; n < prepared.size(); ++n)
    prepared[n] = as_held<T>(static_cast<float>(as_double(x[n])) * image.t[n % f.cols]);
  expected_products out;
  for (std::size_t m = 0; m < tokens; ++m)
    for (std::size_t i = 0; i < f.rows; ++i) {
      double sum = bias.empty() ? 0 : double{bias[i]}, size = std::fabs(sum);
      for (std::size_t j = 0; j < f.cols; ++j) {
        const std::size_t g = j / f.group_size;
        const double unit = image.unit[j / image.format.group_size];
        const double by = q.scale_matrix()(i, g) * unit * prepared[m * f.cols + j];
        const double level = levels[q.code_matrix()(i, j)], zero = q.zero_at(i, g);
        sum += by * (level - zero);
        size += std::fabs(by) * (std::fabs(level) + std::fabs(zero));
      }
      out.y.push_back(sum);
      out.size.push_back(size);
    }
  return out;
}

/// The largest |y - expected| in units of its tolerance; infinite if some output is not a number.
/// @param relative  what the last rounding may add, 2^-11 or 2^-8 for outputs of 16 bits
template <class Out>
[[nodiscard]] double worst_error(std::span<const Out> y, const expected_products& expected, double tolerance,
                                 double relative = 0) {
  if (y.size() != expected.y.size()) return std::numeric_limits<double>::infinity();
  double worst = 0;
  for (std::size_t n = 0; n < y.size(); ++n) {
    const double error = std::fabs(as_double(y[n]) - expected.y[n]);
    const double allowed = tolerance * expected.size[n] + relative * std::fabs(expected.y[n]);
    worst = std::max(worst, error <= 1e300 ? error / allowed : std::numeric_limits<double>::infinity());
  }
  return worst;
}

/// A call of cuda::matmul: shape, kernel and options.
struct product_call {
  std::size_t tokens = 1;
  sinq::cuda::matmul_kernel kernel = sinq::cuda::matmul_kernel::automatic;
  bool has_bias = true;
};

/// Weights in T as the device dequantizes them, in rows of `stride` elements.
template <class T>
[[nodiscard]] std::vector<T> dequantized_on_device(const sinq::packed_matrix& p, std::size_t stride) {
  namespace cuda = sinq::cuda;
  const auto w = value_of(cuda::device_matrix::upload(value_of(cuda::to_device_layout(p))));
  auto to = value_of(cuda::device_buffer<T>::make(p.format.rows * stride));
  require_ok(cuda::dequantize(w, cuda::device_view<T>{to.data(), p.format.rows, p.format.cols, stride}));
  std::vector<T> back(to.size());
  require_ok(to.download(back));
  return back;
}

/// How many of them are not those of the CPU, rounded to T.
template <class T>
[[nodiscard]] std::size_t different_weights(const sinq::packed_matrix& p, std::size_t stride) {
  const std::vector<float> expected = sinq::dequantize(p);
  const std::vector<T> actual = dequantized_on_device<T>(p, stride);
  std::size_t count = 0;
  for (std::size_t i = 0; i < p.format.rows; ++i)
    for (std::size_t j = 0; j < p.format.cols; ++j)
      count += as_double(actual[i * stride + j]) != as_held<T>(expected[i * p.format.cols + j]);
  return count;
}

/// Sends everything to the device, multiplies and gets y back.
template <class Out, class T>
[[nodiscard]] std::vector<Out> multiply_on_device(const sinq::cuda::device_image& image, std::span<const T> x,
                                                  std::span<const float> bias, const product_call& call) {
  namespace cuda = sinq::cuda;
  const std::size_t rows = image.format.rows, cols = image.format.cols;
  const auto w = value_of(cuda::device_matrix::upload(image));
  const auto on_device = value_of(cuda::device_buffer<T>::copy_of(x));
  const auto bias_on_device = value_of(cuda::device_buffer<float>::copy_of(bias));
  auto y = value_of(cuda::device_buffer<Out>::make(call.tokens * rows));
  auto work = value_of(cuda::workspace::make());
  cuda::matmul_options<T, Out> options{.kernel = call.kernel};
  if (call.has_bias) options.bias = bias_on_device.data();
  require_ok(cuda::matmul(w, cuda::device_view<const T>{on_device.data(), call.tokens, cols},
                          cuda::device_view<Out>{y.data(), call.tokens, rows}, work, options));
  std::vector<Out> back(y.size());
  require_ok(y.download(back));
  return back;
}

} // namespace sinq_test
