#pragma once

#include "quantized_matrix.hpp"

#include <algorithm>

namespace sinq {

/// Takes the parts of a quantized weight while they are made, from several threads at once; each part comes once.
class block_sink {
public:
  block_sink() = default;
  block_sink(const block_sink&) = delete;
  block_sink& operator=(const block_sink&) = delete;
  virtual ~block_sink() = default;

  /// Codes from (row, col) on, of whole groups.
  virtual void put_codes(std::size_t row, std::size_t col, matrix_view<const std::uint8_t> codes) = 0;
  /// Scales and zero points of some groups from that row and group on.
  /// @param zero  of the same shape, whether or not the format stores zero points
  virtual void put_groups(std::size_t row, std::size_t group, matrix_view<const float> scale,
                          matrix_view<const float> zero) = 0;
};

/// Puts the parts together in a quantized_matrix.
class matrix_sink final : public block_sink {
public:
  /// @param to  as quantized_matrix::allocate makes it; borrowed
  explicit matrix_sink(quantized_matrix& to) : to_{to} {}

  void put_codes(std::size_t row, std::size_t col, matrix_view<const std::uint8_t> codes) override {
    copy(codes, to_.codes.data() + row * to_.format.cols + col, to_.format.cols);
  }
  void put_groups(std::size_t row, std::size_t group, matrix_view<const float> scale,
                  matrix_view<const float> zero) override {
    const std::size_t groups = to_.format.groups(), first = row * groups + group;
    copy(scale, to_.scale.data() + first, groups);
    if (to_.format.has_zero) copy(zero, to_.zero.data() + first, groups);
  }

private:
  template <class T>
  static void copy(matrix_view<const T> from, T* to, std::size_t stride) {
    for (std::size_t i = 0; i < from.rows(); ++i)
      std::copy_n(from.data() + i * from.stride(), from.cols(), to + i * stride);
  }

  quantized_matrix& to_;
};

namespace detail {

/// Where the results of one tile go.
struct tile_result {
  block_sink& sink;
  std::size_t row, col; ///< its first, in the matrix
  float* scale;         ///< [N], `groups` floats from row to row
  float* zero;          ///< the same
  float* t;             ///< [cols]; null where there is none
  std::size_t groups = 1;
};

/// A quantizer of whole tiles that needs no quantized_matrix of them, but a workspace that the tile is loaded into.
template <class Q>
concept tile_quantizer = requires(const Q& q, typename Q::tile_workspace& work, const tile_result& to) {
  q.tile(work, to);
};

} // namespace detail

} // namespace sinq
