#pragma once

/// What the selftest has from the library's other half: weights, and what they should give. Compiled by an ordinary
/// compiler, because Eigen is in it.

#include <sinq/cuda/layout.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace selftest {

/// What a weight is made of.
struct weight_options {
  int bits = 4;
  bool nf4 = false;
  unsigned group_size = 64;
  unsigned rows = 0;
  unsigned cols = 0;
  double reach = 1; ///< t runs from e^-reach to e^reach
};

/// A weight with random codes, scales, fractional zero points and t.
struct weight {
  sinq::cuda::device_image image;
  std::vector<float> dense; ///< [N x K] by sinq::dequantize; empty if not asked for
};
[[nodiscard]] weight random_weight(const weight_options& options, std::uint64_t seed, bool with_dense);

/// How a weight is quantized.
struct quantized_options {
  bool balance = true;
  int bits = 4;
  bool nf4 = false;
  unsigned group_size = 64;
  bool symmetric = false;
  unsigned rows = 0;
  unsigned cols = 0;
};
/// What the CPU makes of a weight [rows x cols].
[[nodiscard]] sinq::cuda::device_image quantized_on_cpu(std::span<const float> w, const quantized_options& options);

[[nodiscard]] std::vector<float> random_floats(std::size_t count, std::uint64_t seed, double size = 1);

/// Rounds to f16 (not is_bf16) or bf16, and back.
[[nodiscard]] std::uint16_t to_bits(float value, bool is_bf16);
[[nodiscard]] float from_bits(std::uint16_t bits, bool is_bf16);

/// The largest |y - expected| over the magnitude of all that is added up, for some rows of y; infinite if some y is not
/// finite. expected is f64, of activations (and levels) as they are rounded.
/// @param step         every step-th row is looked at
/// @param f16_levels   whether levels are rounded to f16 whatever x is
[[nodiscard]] double worst_error(const sinq::cuda::device_image& image, std::span<const std::uint16_t> x, bool is_bf16,
                                 std::size_t tokens, std::span<const float> bias, std::span<const float> y,
                                 unsigned step, bool f16_levels);

} // namespace selftest
