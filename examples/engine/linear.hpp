#pragma once

#include <sinq/kernels/float_matmul.hpp>
#include <sinq/kernels/matmul.hpp>

#include <string_view>
#include <variant>
#include <vector>

namespace engine {

/// A matrix of floats of any type as it lies in its file, row-major [rows x cols].
struct float_matrix {
  sinq::shared_bytes bytes;
  sinq::dtype type = sinq::dtype::f32;
  std::size_t rows = 0, cols = 0;

  [[nodiscard]] sinq::weight_view view() const { return {bytes.data(), type, rows, cols}; }
};

/// The precision that a command line calls auto, exact or int8. @pre one of these
[[nodiscard]] sinq::precision parse_precision(std::string_view name);

/// With what products are made.
struct compute {
  sinq::executor* threads = &sinq::default_executor();
  sinq::precision precision = sinq::precision::automatic; ///< of quantized weights
};

/// A layer y[M x N] = x[M x K] W^T + b, of quantized weights or of floats.
class linear {
public:
  linear() = default;
  /// @param bias  [N], or nothing
  linear(std::variant<float_matrix, sinq::panel_matrix> weight, std::vector<float> bias)
      : weight_{std::move(weight)}, bias_{std::move(bias)} {}

  /// The same layer with other weights. @pre of the same shape
  [[nodiscard]] linear with(sinq::panel_matrix weight) const { return {std::move(weight), bias_}; }

  [[nodiscard]] std::size_t rows() const;
  [[nodiscard]] std::size_t cols() const;
  /// Of the weight as it is stored.
  [[nodiscard]] std::size_t bytes() const;

  /// @errors  those of sinq::matmul
  [[nodiscard]] sinq::result<void> operator()(sinq::matrix_view<const float> x, sinq::matrix_view<float> y,
                                              const compute& with) const;

private:
  std::variant<float_matrix, sinq::panel_matrix> weight_;
  std::vector<float> bias_;
};

} // namespace engine
