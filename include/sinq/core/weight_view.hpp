#pragma once

#include "convert.hpp"
#include "matrix_view.hpp"

#include <cstdint>
#include <optional>
#include <utility>

namespace sinq {

/// A borrowed weight matrix of any floating element type, row-major [rows x cols]: what a quantizer reads.
/// Made from a typed view, or from the bytes of a tensor in a file, which need no alignment.
class weight_view {
public:
  weight_view() = default;
  /// @param row_bytes  bytes from one row to the next
  weight_view(const byte* data, dtype type, std::size_t rows, std::size_t cols, std::size_t row_bytes)
      : data_{data}, type_{type}, rows_{rows}, cols_{cols}, row_bytes_{row_bytes} {
    SINQ_ASSERT(info(type).is_float && row_bytes >= cols * size_bytes(type));
  }
  weight_view(const byte* data, dtype type, std::size_t rows, std::size_t cols)
      : weight_view{data, type, rows, cols, cols * size_bytes(type)} {}
  template <weight_element T>
  weight_view(matrix_view<const T> w)
      : weight_view{reinterpret_cast<const byte*>(w.data()), dtype_of<T>, w.rows(), w.cols(), w.stride() * sizeof(T)} {}
  template <weight_element T>
  weight_view(matrix_view<T> w) : weight_view{matrix_view<const T>{w}} {}

  [[nodiscard]] dtype type() const { return type_; }
  [[nodiscard]] std::size_t rows() const { return rows_; }
  [[nodiscard]] std::size_t cols() const { return cols_; }
  [[nodiscard]] bool empty() const { return rows_ == 0 || cols_ == 0; }
  /// From one row to the next.
  [[nodiscard]] std::size_t row_bytes() const { return row_bytes_; }
  /// Where element (i, j) is stored.
  [[nodiscard]] const byte* bytes(std::size_t i, std::size_t j) const {
    return data_ + i * row_bytes_ + j * size_bytes(type_);
  }

  /// The matrix itself, if its elements are floats in memory that is aligned for them.
  [[nodiscard]] std::optional<matrix_view<const float>> floats() const { return in_place<float>(dtype::f32); }
  /// The same of bfloat16s: the upper halves of floats.
  [[nodiscard]] std::optional<matrix_view<const std::uint16_t>> bfloat16_bits() const {
    return in_place<std::uint16_t>(dtype::bf16);
  }

  /// Elements (i, j) .. (i, j + to.size() - 1) as floats.
  void load(std::size_t i, std::size_t j, std::span<float> to) const {
    SINQ_ASSERT(i < rows_ && j + to.size() <= cols_);
    load_floats(bytes(i, j), type_, to);
  }

private:
  template <class T>
  [[nodiscard]] std::optional<matrix_view<const T>> in_place(dtype type) const {
    const bool aligned = reinterpret_cast<std::uintptr_t>(data_) % alignof(T) == 0;
    if (type_ != type || !aligned || row_bytes_ % sizeof(T) != 0) return std::nullopt;
    return matrix_view<const T>{reinterpret_cast<const T*>(data_), rows_, cols_, row_bytes_ / sizeof(T)};
  }

  const byte* data_ = nullptr;
  dtype type_ = dtype::f32;
  std::size_t rows_ = 0;
  std::size_t cols_ = 0;
  std::size_t row_bytes_ = 0;
};

/// Row and column of the first NaN or infinity in row-major order, if there is one.
[[nodiscard]] inline std::optional<std::pair<std::size_t, std::size_t>> find_non_finite(const weight_view& w) {
  std::array<float, 256> chunk;
  for (std::size_t i = 0; i < w.rows(); ++i)
    for (std::size_t j = 0; j < w.cols(); j += chunk.size()) {
      const std::span<float> values{chunk.data(), std::min(chunk.size(), w.cols() - j)};
      w.load(i, j, values);
      for (std::size_t k = 0; k < values.size(); ++k)
        if (!is_finite(values[k])) return std::pair{i, j + k};
    }
  return std::nullopt;
}

} // namespace sinq
