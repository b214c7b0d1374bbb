#pragma once

#include "alternating.hpp"
#include "column_tile.hpp"
#include "stats.hpp"
#include "tile_spread.hpp"

#include <vector>

namespace sinq {

/// How evenly a tile spread before and after, and how many iterates were evaluated; of the alternating rule, passes.
template <class Real>
struct sinkhorn_report {
  Real imbalance_before = 1;
  Real imbalance_after = 1;
  int evaluated = 0;
};

/// Scratch of the normaliser: kept between calls, it spares their allocations.
template <class Real>
struct sinkhorn_workspace {
  template <class Scale>
  struct scales {
    std::vector<Scale> row, col;
  };
  std::vector<Real> row_factor, col_factor; // the reciprocals of the current iterate's scales
  // where standard deviations come from sums in float
  detail::column_tile tile, scaled_tile;
  detail::alternating_scales alternating;
  detail::tile_spread spread;
  scales<float> in_float, best_in_float;
  // where they come from sums in double
  stats_workspace stats;
  std::vector<double> row_std, col_std;
  scales<double> in_double, best_in_double;
};

} // namespace sinq
