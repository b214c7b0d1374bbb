#pragma once

#include "../math/sinkhorn.hpp"
#include "balanced_tile.hpp"
#include "block_sink.hpp"
#include "quantizer.hpp"

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

  using tile_workspace = detail::balanced_tile;

  /// Says how the tiles that `work` loads from now on will be balanced; borrowed.
  void prepare(tile_workspace& work) const { work.prepare(&normalizer_); }

  /// The same for one tile that is no wider than a group, some rows at a time: their codes stay in the cache.
  /// @param work  prepared, holds the tile, finite and not empty. @pre the options of the normaliser are valid
  void tile(tile_workspace& work, const detail::tile_result& to) const requires block_quantizer<Inner> {
    work.find_scales(to.t);
    for (std::size_t begin = 0; begin < work.weights().rows(); begin += work.count(begin)) {
      work.quantize(inner_, begin);
      to.sink.put_codes(to.row + begin, to.col, work.codes());
      work.load_next(begin);
      for (std::size_t i = 0; i < work.count(begin); ++i) {
        to.scale[(begin + i) * to.groups] = work.scale()[i] * work.row_scale()[begin + i];
        to.zero[(begin + i) * to.groups] = work.zero()[i];
      }
    }
  }

private:
  sinkhorn_normalizer<float> normalizer_;
  Inner inner_;
};

} // namespace sinq
