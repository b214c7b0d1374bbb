#pragma once

#include "../core/finite.hpp"
#include "../core/powers.hpp"
#include "column_tile.hpp"
#include "sinkhorn_options.hpp"
#include "tile_spread.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

SINQ_SEPARATE_ROUNDING_BEGIN

namespace sinq::detail {

/// One pass of the alternating rule over a block of rows of a tile: first the factors of rows, 1 over their standard
/// deviations, from sums of y = w[i][j] * col_factor[j] and y^2, then, with these, sums over the rows of
/// z = w[i][j] * row_factor[i] and z^2. Three operations each a weight, the second three from the first cache; each
/// fetches half of the rows that come next.
///
///   rows     columns one after another
///   columns  lane i mod 16: rows one after another
struct alternating_loop {
  static constexpr std::size_t most_rows = 64; ///< of a block, which begins with a multiple of them

  struct places {
    const float* col_factor;     ///< [K]
    float* row_factor;           ///< [rows]; not positive where sums have overflowed or underflowed
    float *lanes, *square_lanes; ///< [K x 16] that are added to
  };

  /// @param rows  a multiple of 16
  /// @param next  the block that comes next
  /// @param fix   finds the factors of some of these rows anew, called where one is not positive
  template <std::size_t W, class Fix>
  SINQ_INLINE static void run(const column_tile& t, std::size_t begin, std::size_t rows, std::size_t next,
                              const places& to, Fix& fix) {
    const float* const w = t.column(begin / t.height(), 0) + begin % t.height();
    const std::ptrdiff_t ahead = t.column(next / t.height(), 0) + next % t.height() - w;
    constexpr std::size_t most = 4;
    static_assert(most_rows % (most * W) == 0);
    std::size_t i = 0;
    for (; i + most * W <= rows; i += most * W) add<W, most>(t, w, i, ahead, to, fix);
    for (; i < rows; i += W) add<W, 1>(t, w, i, ahead, to, fix);
  }

private:
  template <std::size_t W, std::size_t Parts, class Fix>
  SINQ_INLINE static void add(const column_tile& t, const float* w, std::size_t begin, std::ptrdiff_t ahead,
                              const places& shared, Fix& fix) {
    const places to = shared; // a copy, which no sum that is written can change
    const std::size_t cols = t.cols(), stride = t.stride();
    const float* const from = w + begin;
    vec<float, W> sum[Parts]{}, square[Parts]{}, factor[Parts], x;
    for (std::size_t j = 0; j < cols; ++j) {
      const float by = to.col_factor[j];
      for (std::size_t p = 0; p < Parts; ++p) {
        load(from + j * stride + p * W, x);
        if (p % 2 == 1) __builtin_prefetch(from + ahead + j * stride + p * W);
        const vec<float, W> y = x * by;
        sum[p] += y;
        add_product(y, y, square[p]);
      }
    }
    const spread_of_sums of{cols};
    vec<float, W> least = vec<float, W>{} + 1.0f;
    for (std::size_t p = 0; p < Parts; ++p) {
      of.find_factor<W>(sum[p], square[p], factor[p]);
      store(factor[p], to.row_factor + begin + p * W);
      least = factor[p] < least ? factor[p] : least;
    }
    least_of_lanes<W>(least);
    if (!(least[0] > 0)) {
      fix(begin, Parts * W);
      for (std::size_t p = 0; p < Parts; ++p) load(to.row_factor + begin + p * W, factor[p]);
    }
    add_to_columns<W, Parts>(from, cols, stride, ahead, factor, to.lanes + begin % tile_lanes,
                             to.square_lanes + begin % tile_lanes);
  }

  template <std::size_t W, std::size_t Parts>
  SINQ_INLINE static void add_to_columns(const float* from, std::size_t cols, std::size_t stride, std::ptrdiff_t ahead,
                                         const vec<float, W> (&factor)[Parts], float* lanes, float* square_lanes) {
    constexpr std::size_t apart = std::min(Parts, tile_lanes / W); // parts that have lanes of their own
    for (std::size_t j = 0; j < cols; ++j) {
      vec<float, W> sum[apart], square[apart], x;
      for (std::size_t a = 0; a < apart; ++a) {
        load(lanes + j * tile_lanes + a * W, sum[a]);
        load(square_lanes + j * tile_lanes + a * W, square[a]);
      }
      for (std::size_t p = 0; p < Parts; ++p) {
        load(from + j * stride + p * W, x);
        if (p % 2 == 0) __builtin_prefetch(from + ahead + j * stride + p * W);
        const vec<float, W> z = x * factor[p];
        sum[p % apart] += z;
        add_product(z, z, square[p % apart]);
      }
      for (std::size_t a = 0; a < apart; ++a) {
        store(sum[a], lanes + j * tile_lanes + a * W);
        store(square[a], square_lanes + j * tile_lanes + a * W);
      }
    }
  }
};

/// Scales of columns from their sums: see alternating_scales.
struct column_scale_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(std::size_t rows, std::size_t cols, const float* lanes, const float* square_lanes,
                              float* sigma) {
    const spread_of_sums of{rows};
    for (std::size_t j = 0; j < cols; ++j) {
      const vec<float, 1> sum{sum_of_tile_lanes<W>(lanes + j * tile_lanes)};
      const vec<float, 1> square{sum_of_tile_lanes<W>(square_lanes + j * tile_lanes)};
      vec<float, 1> factor;
      of.find_factor<1>(sum, square, factor);
      sigma[j] = factor[0] > 0 ? 1 / factor[0] : 0;
    }
  }
};

/// Scales of the rows and columns of a tile by the alternating rule, a pass at a time:
///   r_i = sigma_i (w[i][j] / t[j]),  then  t_j = sigma_j (w[i][j] / r[i])
/// until columns are even before they are evened out. sigma^2 is the variance (ddof = 1), or a sixteenth of the mean
/// square if that is more; t ranges from 1 to 2^15 at most. Lines of zeros have r = 1 and the least t. Any magnitude of
/// weights will do: W and 2^k W have the same t and r that differ by 2^k, short of denormal and infinite numbers.
/// Numerics: f32 in the order of alternating_loop; rows whose squares overflow or underflow in f64. Relative error of
/// sums below 2^-24 (N / 16 + 4).
class alternating_scales {
public:
  void start(std::size_t rows, std::size_t cols) {
    row_factor_.assign(column_tile::whole(rows), 1.0f);
    col_factor_.assign(cols, 1.0f);
    col_scale_.assign(cols, 1.0f);
    lanes_.assign(2 * cols * tile_lanes, 0.0f);
    passes_ = 0;
    largest_ = 0;
  }
  /// Takes rows [begin, begin + count) of a tile, which come in turn and, but for the last, by multiples of 16.
  void add_rows(const column_tile& t, std::size_t begin, std::size_t count) {
    const std::size_t all = column_tile::whole(t.rows()), end = begin + column_tile::whole(count);
    for (std::size_t rows; begin < end; begin += rows) {
      rows = std::min(end - begin, most_rows - begin % most_rows);
      add_block(t, begin, rows, begin + rows < all ? begin + rows : begin);
    }
  }
  /// Takes all rows of a tile, in every second pass from the last block to the first one: where a cache is too small
  /// for the tile, it holds what the pass before ended with.
  void add_all(const column_tile& t) {
    if (passes_ % 2 == 0) return add_rows(t, 0, t.rows());
    for (std::size_t begin, end = column_tile::whole(t.rows()); end > 0; end = begin) {
      begin = (end - 1) / most_rows * most_rows;
      add_block(t, begin, end - begin, begin - std::min(begin, most_rows));
    }
  }
  /// Ends a pass, all rows being in. @return  whether another one would even out what is not yet even
  bool end_pass(std::size_t rows) {
    ++passes_;
    const std::size_t cols = col_scale_.size();
    if (rows > 1)
      run_wide<column_scale_loop>(rows, cols, lanes_.data(), lanes_.data() + cols * tile_lanes, col_scale_.data());
    const float widest = *std::max_element(col_scale_.begin(), col_scale_.end());
    float least = widest, low = std::numeric_limits<float>::infinity(), high = 0;
    for (std::size_t j = 0; j < cols; ++j) {
      float& t = col_scale_[j];
      if (t > 0) {
        low = std::min(low, t * col_factor_[j]);
        high = std::max(high, t * col_factor_[j]);
      }
      t = std::max(t, widest * narrowest_column);
      least = std::min(least, t);
    }
    const float unit = widest > 0 ? std::ldexp(1.0f, -exponent_of(least)) : 1.0f;
    for (std::size_t j = 0; j < cols; ++j) {
      col_scale_[j] = widest > 0 ? col_scale_[j] * unit : 1.0f;
      col_factor_[j] = 1 / col_scale_[j];
    }
    std::fill(lanes_.begin(), lanes_.end(), 0.0f);
    return rows > 1 && cols > 1 && high > low * even_enough;
  }

  [[nodiscard]] int passes() const { return passes_; }
  /// The largest magnitude of the weights if it is 2^64 or more, infinity if one is not finite, and less than 2^64
  /// else.
  [[nodiscard]] float largest() const { return largest_; }
  [[nodiscard]] std::span<const float> row_factor() const { return row_factor_; } ///< [N] filled up, 1 / r
  [[nodiscard]] std::span<const float> col_scale() const { return col_scale_; }   ///< [K] t

private:
  static constexpr std::size_t most_rows = alternating_loop::most_rows;

  void add_block(const column_tile& t, std::size_t begin, std::size_t rows, std::size_t next) {
    float* const factors = row_factor_.data() + begin;
    auto fix = [&](std::size_t first, std::size_t some) {
      for (std::size_t k = first; k < first + some; ++k)
        if (!(factors[k] > 0)) factors[k] = factor_in_double(t, begin + k, largest_);
    };
    const alternating_loop::places to{col_factor_.data(), factors, lanes_.data(),
                                      lanes_.data() + t.cols() * tile_lanes};
    run_wide<alternating_loop>(t, begin, rows, next, to, fix);
  }
  /// @param largest  magnitude so far
  [[nodiscard]] float factor_in_double(const column_tile& t, std::size_t i, float& largest) const {
    double sum = 0, square = 0;
    for (std::size_t j = 0; i < t.rows() && j < t.cols(); ++j) {
      largest = is_finite(t(i, j)) ? std::max(largest, std::fabs(t(i, j))) : std::numeric_limits<float>::infinity();
      const double y = static_cast<double>(t(i, j)) * static_cast<double>(col_factor_[j]);
      sum += y;
      square += y * y;
    }
    if (square == 0) return 1;
    const double terms = static_cast<double>(t.cols());
    const double spread =
        std::max(square - sum * sum / terms, square * static_cast<double>(spread_of_sums::cancellation_limit));
    constexpr double most = 0x1p126;
    return static_cast<float>(std::clamp(std::sqrt((terms - 1) / spread), 1 / most, most));
  }

  std::vector<float> row_factor_, col_factor_, col_scale_, lanes_;
  int passes_ = 0;
  float largest_ = 0;
};

/// What alternate_in_double finds.
struct alternating_in_double {
  std::vector<double> row, col;
  int passes = 0;
};

/// alternating_scales in double, of weights in rows: slow, and the same but for rounding.
template <class Real>
[[nodiscard]] alternating_in_double alternate_in_double(matrix_view<const Real> w, int most_passes) {
  const std::size_t rows = w.rows(), cols = w.cols();
  alternating_in_double out{std::vector<double>(rows, 1.0), std::vector<double>(cols, 1.0), 0};
  const auto sigma = [](std::size_t n, auto&& get) {
    double sum = 0, square = 0;
    for (std::size_t k = 0; k < n; ++k) {
      sum += get(k);
      square += get(k) * get(k);
    }
    const double terms = static_cast<double>(n);
    const double least = square * static_cast<double>(spread_of_sums::cancellation_limit);
    return std::sqrt(std::max(square - sum * sum / terms, least) / (terms - 1));
  };
  const auto weight = [&](std::size_t i, std::size_t j) { return static_cast<double>(w.data()[i * w.stride() + j]); };
  for (bool uneven = cols > 1; uneven && out.passes < most_passes; ++out.passes) {
    for (std::size_t i = 0; i < rows; ++i) {
      const double found = sigma(cols, [&](std::size_t j) { return weight(i, j) / out.col[j]; });
      out.row[i] = found > 0 ? found : 1;
    }
    if (rows == 1) continue;
    std::vector<double> t(cols);
    double low = std::numeric_limits<double>::infinity(), high = 0;
    for (std::size_t j = 0; j < cols; ++j) {
      t[j] = sigma(rows, [&](std::size_t i) { return weight(i, j) / out.row[i]; });
      if (t[j] > 0) low = std::min(low, t[j] / out.col[j]);
      high = std::max(high, t[j] / out.col[j]);
    }
    const double widest = *std::max_element(t.begin(), t.end());
    for (double& some : t) some = std::max(some, widest * static_cast<double>(narrowest_column));
    const double unit = widest > 0 ? std::exp2(-std::floor(std::log2(*std::min_element(t.begin(), t.end())))) : 1;
    for (std::size_t j = 0; j < cols; ++j) out.col[j] = widest > 0 ? t[j] * unit : 1;
    uneven = high > low * static_cast<double>(even_enough);
  }
  return out;
}

} // namespace sinq::detail

SINQ_SEPARATE_ROUNDING_END
