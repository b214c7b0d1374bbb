#pragma once

#include "../math/sinkhorn.hpp"
#include "block_sink.hpp"
#include "quantizer.hpp"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

namespace sinq {

/// SINQ around any quantizer: balances a tile by Sinkhorn, quantizes what is left, and keeps both scales.
/// W ~ diag(row) * inner(W_hat) * diag(col):  scale = row * inner.scale, t = col * inner.t
/// Called with a matrix it treats that as one tile; `quantize_tiles` cuts a weight into tiles of group_size columns, as
/// the paper's 1D tiling does.
/// Source: arXiv 2509.22944, section 2; huawei-csl/SINQ sinq/dual_shift.py (tiled_quant_rectangle).
template <quantizer Inner>
class sinkhorn_quantizer {
public:
  static constexpr bool row_independent = false;

  sinkhorn_quantizer() = default;
  sinkhorn_quantizer(const sinkhorn_options& options, Inner inner) : normalizer_{options}, inner_{std::move(inner)} {}

  [[nodiscard]] int bits() const { return inner_.bits(); }
  [[nodiscard]] std::size_t group_size() const { return inner_.group_size(); }
  [[nodiscard]] const Inner& inner() const { return inner_; }

  /// @param w  [N x K], finite
  /// @errors   those of sinkhorn_normalizer and of the inner quantizer
  [[nodiscard]] result<quantized_matrix> operator()(matrix_view<const float> w) const {
    const result<normalized_matrix<float>> balanced = normalizer_(w);
    if (!balanced) return balanced.error();
    result<quantized_matrix> inner = inner_(balanced->matrix());
    if (!inner) return inner;
    const std::size_t groups = inner->format.groups();
    for (std::size_t i = 0; i < w.rows(); ++i)
      for (std::size_t g = 0; g < groups; ++g) inner->scale[i * groups + g] *= balanced->row_scale[i];
    if (!inner->format.has_col_scale) inner->col_scale.assign(w.cols(), 1.0f);
    for (std::size_t j = 0; j < w.cols(); ++j) inner->col_scale[j] *= balanced->col_scale[j];
    inner->format.has_col_scale = true;
    inner->method = "sinq_" + inner->method;
    return inner;
  }

  /// The same for one tile that is no wider than a group, 32 rows at a time: its balanced weights stay in the cache.
  /// @pre w is finite and not empty, and the options of the normaliser are valid
  void tile(matrix_view<const float> w, const detail::tile_result& to) const requires block_quantizer<Inner> {
    constexpr std::size_t rows_at_once = 32;
    std::vector<float> row_scale(w.rows()), balanced(rows_at_once * w.cols());
    std::vector<std::uint8_t> codes(balanced.size());
    std::array<float, rows_at_once> scale, zero;
    const std::span<float> t{to.t, w.cols()};
    sinkhorn_workspace<float> workspace;
    normalizer_.find_scales(w, row_scale, t, workspace);
    for (std::size_t begin = 0; begin < w.rows(); begin += rows_at_once) {
      const std::size_t count = std::min(rows_at_once, w.rows() - begin);
      const std::span<const float> by = std::span{row_scale}.subspan(begin, count);
      const matrix_view<float> some{balanced.data(), count, w.cols()};
      normalizer_.template divide<float>(w.block(begin, 0, count, w.cols()), by, t, some);
      inner_.block(some, {codes.data(), scale.data(), zero.data()});
      to.sink.put_codes(to.row + begin, to.col, {codes.data(), count, w.cols()});
      for (std::size_t i = 0; i < count; ++i) {
        to.scale[(begin + i) * to.stride] = scale[i] * by[i];
        to.zero[(begin + i) * to.stride] = zero[i];
      }
    }
  }

private:
  sinkhorn_normalizer<float> normalizer_;
  Inner inner_;
};

} // namespace sinq
