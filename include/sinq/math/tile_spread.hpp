#pragma once

#include "column_tile.hpp"
#include "stats.hpp"

#include <cmath>
#include <limits>
#include <span>
#include <vector>

SINQ_SEPARATE_ROUNDING_BEGIN

namespace sinq::detail {

/// The sum of 16 lanes as a tree.
template <std::size_t W>
SINQ_INLINE float sum_of_tile_lanes(const float* lanes) {
  constexpr std::size_t pieces = tile_lanes / W;
  vec<float, W> piece[pieces];
  for (std::size_t p = 0; p < pieces; ++p) load(lanes + p * W, piece[p]);
  for (std::size_t half = pieces / 2; half > 0; half /= 2)
    for (std::size_t p = 0; p < half; ++p) piece[p] += piece[p + half];
  sum_of_lanes<W>(piece[0]);
  return piece[0][0];
}

/// Standard deviations of lines of so many terms, times a factor each, from their sums; negative where they may be
/// wrong: where cancellation, overflow or underflow has taken bits.
struct spread_of_sums {
  static constexpr float cancellation_limit = 0x1p-4f; ///< of the ratio of variance to mean square
  float per_term, per_rest, least;

  explicit spread_of_sums(std::size_t n)
      : per_term{1 / static_cast<float>(n)}, per_rest{1 / static_cast<float>(n - 1)},
        least{static_cast<float>(n) * std::numeric_limits<float>::min()} {}

  template <std::size_t W>
  SINQ_INLINE void find(const vec<float, W>& sum, const vec<float, W>& square, const vec<float, W>& factor,
                        vec<float, W>& sigma) const {
    const vec<float, W> spread = square - (sum * sum) * per_term;
    vec<float, W> floor = vec<float, W>{} + least, root, inverse;
    floor = square * cancellation_limit > floor ? square * cancellation_limit : floor;
    square_roots<W>(spread * per_rest, root, inverse);
    sigma = spread > floor ? root * factor : vec<float, W>{} - 1.0f; // infinite squares are not above the floor
  }

  /// 1 over the standard deviation, of which the variance is taken to be `cancellation_limit` of the mean square if it
  /// is less; negative where squares overflow or underflow.
  template <std::size_t W>
  SINQ_INLINE void find_factor(const vec<float, W>& sum, const vec<float, W>& square, vec<float, W>& factor) const {
    const vec<float, W> floor = square * cancellation_limit, low = vec<float, W>{} + 32 * least;
    const vec<float, W> finite = square + square * 0.0f; // or NaN: one comparison is a select, two are not to g++
    vec<float, W> spread = square - sum * (sum * per_term), root, found;
    spread = spread > floor ? spread : floor;
    square_roots<W>(spread * per_rest, root, found);
    factor = finite > low ? found : vec<float, W>{} - 1.0f;
  }

private:
  /// Square roots of normal floats, and 1 over them, within two units in the last place, by Newton's steps from a guess
  /// by the bits: operations that every machine rounds alike.
  template <std::size_t W>
  SINQ_INLINE static void square_roots(const vec<float, W>& x, vec<float, W>& root, vec<float, W>& inverse) {
    vec<std::uint32_t, W> bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    bits = 0x5f375a86u - (bits >> 1);
    __builtin_memcpy(&inverse, &bits, sizeof bits);
    const vec<float, W> half = x * 0.5f;
    for (int k = 0; k < 3; ++k) inverse *= 1.5f - half * inverse * inverse;
    root = x * inverse;
  }
};

/// Standard deviations of the rows and columns of a tile times factors, in one pass of four fused products a weight:
/// sums of x = w[i][j] and of x^2 over rows, weighed by col_factor[j] and its square, and over columns, weighed by
/// row_factor[i] and its square.
///
///   rows     64 columns one after another, then these blocks of columns
///   columns  lane i mod 16: the rows of a chunk one after another, then chunks; the lanes as a tree
struct tile_spread_loop {
  struct places {
    float* row;                  ///< [N], filled up to a multiple of 16
    float* col;                  ///< [K]
    float *lanes, *square_lanes; ///< [K x 16] scratch
  };

  /// @param row_factor  [N], filled up as well
  template <std::size_t W>
  SINQ_INLINE static void run(const column_tile& t, const float* row_factor, const float* col_factor,
                              const places& to) {
    std::fill_n(to.lanes, t.cols() * tile_lanes, 0.0f);
    std::fill_n(to.square_lanes, t.cols() * tile_lanes, 0.0f);
    part p;
    for (std::size_t n = 0; n < t.chunks(); ++n) {
      start<W>(t, n, row_factor, p);
      for (std::size_t j = 0; j < t.cols();) {
        std::fill_n(p.sum, p.rows, 0.0f);
        std::fill_n(p.square, p.rows, 0.0f);
        const std::size_t end = std::min(t.cols(), j + block_cols);
        for (; j + strip <= end; j += strip) add_columns<W, strip>(t.column(n, j), col_factor + j, p, to, j);
        for (; j < end; ++j) add_columns<W, 1>(t.column(n, j), col_factor + j, p, to, j);
        for (std::size_t i = 0; i < p.rows; i += W) {
          vec<float, W> some;
          load(p.sum + i, some);
          add_to<W>(some, p.row_sum + i);
          load(p.square + i, some);
          add_to<W>(some, p.row_square + i);
        }
      }
      finish_rows<W>(p, t.cols(), to.row + n * t.height());
    }
    finish_cols<W>(t, col_factor, to);
  }

private:
  static constexpr std::size_t block_cols = 64, strip = 4;
  /// A chunk, sums over a block of its columns and over all.
  struct part {
    using lines = float[column_tile::most_height];
    std::size_t stride, rows;
    alignas(buffer_alignment_bytes) lines factor;
    alignas(buffer_alignment_bytes) lines factor_square;
    alignas(buffer_alignment_bytes) lines sum;
    alignas(buffer_alignment_bytes) lines square;
    alignas(buffer_alignment_bytes) lines row_sum;
    alignas(buffer_alignment_bytes) lines row_square;
  };

  template <std::size_t W>
  SINQ_INLINE static void start(const column_tile& t, std::size_t chunk, const float* row_factor, part& p) {
    p.stride = t.stride();
    p.rows = t.chunk_rows(chunk);
    vec<float, W> factor;
    for (std::size_t i = 0; i < p.rows; i += W) {
      load(row_factor + chunk * t.height() + i, factor);
      store(factor, p.factor + i);
      store(factor * factor, p.factor_square + i);
      store(vec<float, W>{}, p.row_sum + i);
      store(vec<float, W>{}, p.row_square + i);
    }
  }

  template <std::size_t W>
  SINQ_INLINE static void add_to(const vec<float, W>& some, float* to) {
    vec<float, W> sum;
    load(to, sum);
    store(sum + some, to);
  }

  template <std::size_t W, std::size_t Cols>
  SINQ_INLINE static void add_columns(const float* w, const float* col_factor, part& p, const places& to,
                                      std::size_t j) {
    using wide = vec<float, W>;
    const std::size_t rows = p.rows, stride = p.stride; // copies, which no sum that is written can change
    wide factor[Cols], factor_square[Cols];
    for (std::size_t k = 0; k < Cols; ++k) {
      factor[k] = wide{} + col_factor[k];
      factor_square[k] = factor[k] * factor[k];
    }
    for (std::size_t lane = 0; lane < tile_lanes; lane += W) {
      wide col[Cols]{}, col_square[Cols]{}, row, row_square, sum, square, x;
      for (std::size_t i = lane; i < rows; i += tile_lanes) {
        load(p.factor + i, row);
        load(p.factor_square + i, row_square);
        load(p.sum + i, sum);
        load(p.square + i, square);
        for (std::size_t k = 0; k < Cols; ++k) {
          load(w + k * stride + i, x);
          __builtin_prefetch(w + (k + Cols) * stride + i);
          const wide xx = x * x;
          add_product(x, factor[k], sum);
          add_product(xx, factor_square[k], square);
          add_product(x, row, col[k]);
          add_product(xx, row_square, col_square[k]);
        }
        store(sum, p.sum + i);
        store(square, p.square + i);
      }
      for (std::size_t k = 0; k < Cols; ++k) {
        add_to<W>(col[k], to.lanes + (j + k) * tile_lanes + lane);
        add_to<W>(col_square[k], to.square_lanes + (j + k) * tile_lanes + lane);
      }
    }
  }

  template <std::size_t W>
  SINQ_INLINE static void finish_rows(const part& p, std::size_t terms, float* to) {
    const spread_of_sums of{terms};
    vec<float, W> sum, square, factor, sigma;
    for (std::size_t i = 0; i < p.rows; i += W) {
      load(p.row_sum + i, sum);
      load(p.row_square + i, square);
      load(p.factor + i, factor);
      of.find<W>(sum, square, factor, sigma);
      store(sigma, to + i);
    }
  }

  template <std::size_t W>
  SINQ_INLINE static void finish_cols(const column_tile& t, const float* factor, const places& to) {
    const spread_of_sums of{t.rows()};
    for (std::size_t j = 0; j < t.cols(); ++j) {
      const vec<float, 1> sum{sum_of_tile_lanes<W>(to.lanes + j * tile_lanes)};
      const vec<float, 1> square{sum_of_tile_lanes<W>(to.square_lanes + j * tile_lanes)};
      vec<float, 1> sigma;
      of.find<1>(sum, square, vec<float, 1>{factor[j]}, sigma);
      to.col[j] = sigma[0];
    }
  }
};

/// Standard deviations of the rows and columns of A[i][j] = t[i][j] * col_factor[j] * row_factor[i].
/// sigma = sqrt(sum (a - mean)^2 / (n - 1)); a side of length 1 has no spread: the rows of a single column and the
/// columns of a single row get 0.
/// Numerics: f32 in the fixed order of tile_spread_loop, the factor of a line itself multiplied in at the end; lines
/// whose mean dwarfs their spread, or whose squares overflow or underflow, are done again in two passes in f64.
/// Relative error below 2e-6 where the variance exceeds half of the mean square, and 2e-5 at worst.
class tile_spread {
public:
  /// @param row_factor  [N], filled up to a multiple of 16, @param col_factor [K]
  void measure(const column_tile& t, std::span<const float> row_factor, std::span<const float> col_factor) {
    const std::size_t rows = t.rows(), cols = t.cols();
    SINQ_ASSERT(row_factor.size() == column_tile::whole(rows) && col_factor.size() == cols);
    row_.resize(row_factor.size());
    col_.resize(cols);
    lanes_.resize(2 * cols * tile_lanes);
    run_wide<tile_spread_loop>(
        t, row_factor.data(), col_factor.data(),
        tile_spread_loop::places{row_.data(), col_.data(), lanes_.data(), lanes_.data() + cols * tile_lanes});
    row_.resize(rows);
    check(cols, row_factor, row_, [&](std::size_t i, std::size_t j) { return t(i, j) * col_factor[j]; });
    check(rows, col_factor, col_, [&](std::size_t j, std::size_t i) { return t(i, j) * row_factor[i]; });
  }

  [[nodiscard]] std::span<const float> row() const { return row_; } ///< [N]
  [[nodiscard]] std::span<const float> col() const { return col_; } ///< [K]

private:
  /// Finds those that may be wrong anew.
  template <class Get>
  static void check(std::size_t n, std::span<const float> factor, std::span<float> sigma, Get&& get) {
    if (n <= 1) return std::fill(sigma.begin(), sigma.end(), 0.0f);
    float low = 0, high = 0;
    run_wide<widen_loop<float>>(sigma.data(), sigma.size(), low, high);
    for (std::size_t line = 0; low < 0 && line < sigma.size(); ++line)
      if (sigma[line] < 0) {
        const double spread = stddev_two_pass(n, [&](std::size_t k) { return static_cast<double>(get(line, k)); });
        sigma[line] = static_cast<float>(static_cast<double>(factor[line]) * spread);
      }
  }

  std::vector<float> row_, col_, lanes_;
};

} // namespace sinq::detail

SINQ_SEPARATE_ROUNDING_END
