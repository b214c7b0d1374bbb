#pragma once

#include "../math/sinkhorn.hpp"
#include "balanced_tile.hpp"
#include "block_sink.hpp"
#include "rtn.hpp"

#include <utility>
#include <vector>

namespace sinq {

/// The scales, zero points and t of round-to-nearest, after the Sinkhorn normalisation of each tile if balanced, but no
/// codes: all that refinement needs of them. Called with one tile of one group of columns; a group of zeros gets scale
/// 0, all else is as in `rtn` and `sinkhorn_quantizer`.
/// Numerics: dividing by a row's scale keeps the order of its weights, so that one division a weight will do.
template <bool Balanced>
class initial_scales {
public:
  static constexpr bool row_independent = !Balanced;

  /// @pre the options of sinkhorn are valid
  initial_scales(const rtn& inner, const sinkhorn_options& options) : inner_{inner}, normalizer_{options} {}

  [[nodiscard]] int bits() const { return inner_.bits(); }
  [[nodiscard]] std::size_t group_size() const { return inner_.group_size(); }

  /// @pre w is finite, not empty, and no wider than a group
  [[nodiscard]] result<quantized_matrix> operator()(matrix_view<const float> w) const {
    const rtn_options& o = inner_.options();
    SINQ_ASSERT(!w.empty() && w.cols() <= o.group_size && !o.noz);
    quantized_matrix q = quantized_matrix::outline({.rows = w.rows(),
                                                    .cols = w.cols(),
                                                    .bits = inner_.bits(),
                                                    .group_size = o.group_size,
                                                    .aux = o.aux,
                                                    .has_zero = !o.symmetric,
                                                    .has_col_scale = Balanced},
                                                   "");
    q.scale.resize(w.rows());
    q.zero.resize(w.rows());
    matrix_sink no_codes{q};
    tile_workspace work;
    prepare(work);
    const bool finite = work.load(w, 0, 0, w.rows(), w.cols());
    SINQ_ASSERT(finite);
    tile(work, {no_codes, 0, 0, q.scale.data(), q.zero.data(), q.col_scale.data()});
    if (o.symmetric) q.zero.clear();
    return q;
  }

  using tile_workspace = detail::balanced_tile;

  /// Says how the tiles that `work` loads from now on will be balanced; borrowed.
  void prepare(tile_workspace& work) const { work.prepare(Balanced ? &normalizer_ : nullptr); }

  /// The same for a tile that `work` holds, prepared before.
  void tile(tile_workspace& work, const detail::tile_result& to) const {
    if constexpr (Balanced)
      work.find_scales(to.t);
    else
      work.leave_scales();
    std::vector<bool> zeros;
    for (std::size_t begin = 0, count; begin < work.weights().rows(); begin += count) {
      count = work.count(begin);
      work.find_ranges(begin, false);
      const std::span<float> scale = work.scale().first(count), zero = work.zero().first(count);
      zeros.resize(count);
      for (std::size_t i = 0; i < count; ++i) zeros[i] = scale[i] == 0 && zero[i] == 0;
      inner_.fit(scale, zero);
      for (std::size_t i = 0; i < count; ++i) {
        to.scale[(begin + i) * to.groups] = zeros[i] ? 0 : scale[i] * work.row_scale()[begin + i];
        to.zero[(begin + i) * to.groups] = zero[i];
      }
    }
  }

private:
  rtn inner_;
  sinkhorn_normalizer<float> normalizer_;
};

} // namespace sinq
