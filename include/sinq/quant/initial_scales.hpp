#pragma once

#include "../math/sinkhorn.hpp"
#include "rtn.hpp"

#include <utility>
#include <vector>

namespace sinq {

namespace detail {

/// Smallest and largest (w[i][j] / col[j]) / row[i] of each row.
struct normalized_range_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const matrix_view<const float>& w, const float* col, const float* row_scale, float* lows,
                              float* highs) {
    for (std::size_t i = 0; i < w.rows(); ++i) {
      const float* const row = w.data() + i * w.stride();
      vec<float, W> low = vec<float, W>{} + row[0] / col[0], high = low, x, by;
      std::size_t j = 0;
      for (; j + W <= w.cols(); j += W) {
        load(row + j, x);
        load(col + j, by);
        x /= by;
        low = x < low ? x : low;
        high = x > high ? x : high;
      }
      least_of_lanes<W>(low);
      most_of_lanes<W>(high);
      value_range found{low[0], high[0]};
      for (; j < w.cols(); ++j) found = {std::min(found.low, row[j] / col[j]), std::max(found.high, row[j] / col[j])};
      lows[i] = found.low / row_scale[i];
      highs[i] = found.high / row_scale[i];
    }
  }
};

} // namespace detail

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
    quantized_matrix q;
    q.format = {.rows = w.rows(),
                .cols = w.cols(),
                .bits = inner_.bits(),
                .group_size = o.group_size,
                .aux = o.aux,
                .has_zero = !o.symmetric,
                .has_col_scale = Balanced};
    q.scale.resize(w.rows());
    std::vector<float> row_scale(w.rows(), 1.0f);
    std::vector<float> high(w.rows());
    if constexpr (Balanced) {
      q.col_scale.resize(w.cols());
      sinkhorn_workspace<float> workspace;
      normalizer_.find_scales(w, row_scale, q.col_scale, workspace);
      detail::run_wide<detail::normalized_range_loop>(w, q.col_scale.data(), row_scale.data(), q.scale.data(),
                                                      high.data());
    } else {
      detail::run_wide<detail::group_range_loop>(detail::grouped_rows{w, o.group_size}, q.scale.data(), high.data());
    }
    std::vector<bool> zeros(w.rows());
    for (std::size_t i = 0; i < w.rows(); ++i) zeros[i] = q.scale[i] == 0 && high[i] == 0;
    inner_.fit(q.scale, high);
    for (std::size_t i = 0; i < w.rows(); ++i) q.scale[i] = zeros[i] ? 0 : q.scale[i] * row_scale[i];
    if (!o.symmetric) q.zero = std::move(high);
    return q;
  }

private:
  rtn inner_;
  sinkhorn_normalizer<float> normalizer_;
};

} // namespace sinq
