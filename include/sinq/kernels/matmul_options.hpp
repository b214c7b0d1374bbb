#pragma once

#include "../core/error.hpp"
#include "../core/matrix_view.hpp"
#include "../core/parallel.hpp"

#include <cstdint>
#include <span>

namespace sinq {

/// What the activations are multiplied as.
enum class precision : std::uint8_t {
  automatic, ///< int8 for codes of up to 5 bits, whose own error is several times as large, otherwise exact
  exact,     ///< floats
  int8,      ///< bytes, with a scale for every 64 columns (32 where groups are no multiple of 64)
};

/// How `matmul` works.
struct matmul_options {
  sinq::precision precision = precision::automatic;
  std::span<const float> bias{}; ///< [N], or nothing
  executor* threads = nullptr;   ///< nullptr: default_executor()
};

namespace detail {

/// Whether x [M x K], y [M x N] and a bias fit a weight [N x K].
/// @errors  errc::invalid_argument
[[nodiscard]] inline result<void> check_shapes(std::size_t rows, std::size_t cols, std::size_t x_rows,
                                               std::size_t x_cols, matrix_view<float> y, std::span<const float> bias) {
  if (x_cols != cols || y.rows() != x_rows || y.cols() != rows)
    return make_error(errc::invalid_argument, "matmul: x is ", x_rows, " x ", x_cols, " and y ", y.rows(), " x ",
                      y.cols(), ", expected M x ", cols, " and M x ", rows);
  if (!bias.empty() && bias.size() != rows)
    return make_error(errc::invalid_argument, "matmul: bias has ", bias.size(), " entries, expected ", rows);
  return {};
}

} // namespace detail
} // namespace sinq
