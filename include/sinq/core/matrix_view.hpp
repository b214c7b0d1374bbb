#pragma once

#include "config.hpp"

#include <Eigen/Core>

#include <concepts>
#include <span>
#include <type_traits>

namespace sinq {

namespace detail {

/// A row-major Eigen expression with memory of its own whose elements can be viewed as T.
template <class Derived, class T>
concept row_major_eigen = static_cast<bool>(Derived::IsRowMajor) && requires(Derived& m) {
  { m.data() } -> std::convertible_to<T*>;
  m.outerStride();
};

} // namespace detail

/// A borrowed row-major matrix: element (i, j) is data[i * stride + j].
/// Rows are outputs (N) and columns inputs (K) wherever a weight is meant. Never owns, cheap to copy.
template <class T>
class matrix_view {
public:
  using value_type = std::remove_const_t<T>;

  constexpr matrix_view() = default;
  /// @param stride  elements from one row to the next, >= cols
  constexpr matrix_view(T* data, std::size_t rows, std::size_t cols, std::size_t stride)
      : data_{data}, rows_{rows}, cols_{cols}, stride_{stride} {
    SINQ_ASSERT(stride >= cols);
  }
  constexpr matrix_view(T* data, std::size_t rows, std::size_t cols) : matrix_view{data, rows, cols, cols} {}

  /// A view of anything that Eigen holds row-major with unit inner stride: Matrix, Map or Ref.
  template <detail::row_major_eigen<T> Derived>
  matrix_view(Derived& m)
      : matrix_view{m.data(), static_cast<std::size_t>(m.rows()), static_cast<std::size_t>(m.cols()),
                    static_cast<std::size_t>(m.outerStride())} {
    SINQ_ASSERT(m.innerStride() == 1);
  }

  /// A view of const elements from one of mutable elements.
  template <std::same_as<value_type> U>
  constexpr matrix_view(matrix_view<U> other) : matrix_view{other.data(), other.rows(), other.cols(), other.stride()} {}

  [[nodiscard]] constexpr T* data() const { return data_; }
  [[nodiscard]] constexpr std::size_t rows() const { return rows_; }
  [[nodiscard]] constexpr std::size_t cols() const { return cols_; }
  [[nodiscard]] constexpr std::size_t stride() const { return stride_; }
  [[nodiscard]] constexpr bool empty() const { return rows_ == 0 || cols_ == 0; }

  [[nodiscard]] constexpr std::span<T> row(std::size_t i) const {
    SINQ_ASSERT(i < rows_);
    return {data_ + i * stride_, cols_};
  }
  [[nodiscard]] constexpr T& operator()(std::size_t i, std::size_t j) const {
    SINQ_ASSERT(i < rows_ && j < cols_);
    return data_[i * stride_ + j];
  }
  /// The block of `rows` x `cols` whose first element is (i, j).
  [[nodiscard]] constexpr matrix_view block(std::size_t i, std::size_t j, std::size_t rows, std::size_t cols) const {
    SINQ_ASSERT(i + rows <= rows_ && j + cols <= cols_);
    return {data_ + i * stride_ + j, rows, cols, stride_};
  }

  /// The same memory as an Eigen matrix.
  [[nodiscard]] auto eigen() const {
    using plain = Eigen::Matrix<value_type, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    using mapped = std::conditional_t<std::is_const_v<T>, const plain, plain>;
    return Eigen::Map<mapped, Eigen::Unaligned, Eigen::OuterStride<>>{
        data_, static_cast<Eigen::Index>(rows_), static_cast<Eigen::Index>(cols_),
        Eigen::OuterStride<>{static_cast<Eigen::Index>(stride_)}};
  }

private:
  T* data_ = nullptr;
  std::size_t rows_ = 0;
  std::size_t cols_ = 0;
  std::size_t stride_ = 0;
};

template <class T>
matrix_view(T*, std::size_t, std::size_t) -> matrix_view<T>;
template <class T>
matrix_view(T*, std::size_t, std::size_t, std::size_t) -> matrix_view<T>;

} // namespace sinq
