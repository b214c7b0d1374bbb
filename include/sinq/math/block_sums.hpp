#pragma once

#include "../core/matrix_view.hpp"
#include "../core/wide.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

SINQ_SEPARATE_ROUNDING_BEGIN

namespace sinq::detail {

/// Partial sums of a reduction over a row: element j belongs to lane j mod 16, and the lanes are added as a tree,
/// 16 to 8 to 4 to 2 to 1. Scalar code and every vector unit add in this one order.
inline constexpr std::size_t reduction_lanes = 16;
using lane_sums = std::array<double, reduction_lanes>;

template <class Sum>
[[nodiscard]] SINQ_INLINE Sum add_lanes(std::array<Sum, reduction_lanes> lanes) {
  for (std::size_t half = reduction_lanes / 2; half > 0; half /= 2)
    for (std::size_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

/// Rows and columns of a block of sums.
inline constexpr std::size_t sum_rows = 32;
inline constexpr std::size_t sum_cols = 64;

/// Sums over the rows and columns of A[i][j] = m[i][j] * col_factor[j] * row_factor[i], which is in Real, and of its
/// squares: in f64, over the 64 columns (in 16 lanes, then as a tree) and the 32 rows (one after another) of a block,
/// then over blocks.
///
///            64 columns        64          < 64: 16 at a time, the last ones with zeros
///         +-----------------+-----------------+-----+
/// 32 rows | s: 16 lanes, 32 |                 |     |  row    sum += tree(lanes)
///         | columns' sums   |                 |     |  column sum += s
///         +-----------------+-----------------+-----+
template <class Real>
struct sum_loop {
  /// Where sums are added; the rows' have room for a multiple of 32.
  struct sums {
    double* row;        ///< [N]
    double* row_square; ///< [N]
    double* col;        ///< [K]
    double* col_square; ///< [K]
  };

  template <std::size_t W>
  SINQ_INLINE static void run(const matrix_view<const Real>& m, const Real* col_factor, const Real* row_factor,
                              const sums& to) {
    constexpr std::size_t width = W == 1 ? W : W / 2;
    row_lanes lanes{};
    for (std::size_t i = 0; i < m.rows(); i += sum_rows) {
      block b{m.data() + i * m.stride(), m.stride(), std::min(sum_rows, m.rows() - i), col_factor, row_factor + i};
      sums part{to.row + i, to.row_square + i, to.col, to.col_square};
      std::size_t j = 0;
      for (; j + sum_cols <= m.cols(); j += sum_cols) add_block<width, sum_cols>(b, part, lanes);
      for (; j + reduction_lanes <= m.cols(); j += reduction_lanes) add_block<width, reduction_lanes>(b, part, lanes);
      if (j < m.cols()) add_rest<width>(b, part, lanes, m.cols() - j);
    }
  }

private:
  struct block {
    const Real* values;
    std::size_t stride;
    std::size_t rows;
    const Real* col_factor;
    const Real* row_factor;
  };
  /// Lanes of the rows' sums.
  struct row_lanes {
    double sum[sum_rows][reduction_lanes];
    double square[sum_rows][reduction_lanes];
  };

  /// Adds the sums of a block of so many columns, and moves on to the next.
  template <std::size_t W, std::size_t Cols>
  SINQ_INLINE static void add_block(block& b, sums& to, row_lanes& lanes) {
    constexpr std::size_t strip = std::min(Cols, std::max(reduction_lanes, 4 * W)); // what registers hold
    add_strip<W, strip, true>(b, to, lanes);
    for (std::size_t j = strip; j < Cols; j += strip) add_strip<W, strip, false>(b, to, lanes);
    for (std::size_t r = 0; r < b.rows; r += W) {
      add_lanes_of<W>(lanes.sum + r, to.row + r);
      add_lanes_of<W>(lanes.square + r, to.row_square + r);
    }
  }

  /// Fewer than 16 columns are summed like 16 of which the last are zero.
  template <std::size_t W>
  SINQ_INLINE static void add_rest(const block& b, const sums& to, row_lanes& lanes, std::size_t cols) {
    Real values[sum_rows][reduction_lanes]{}, factor[reduction_lanes]{};
    double col[reduction_lanes]{}, col_square[reduction_lanes]{};
    std::copy_n(b.col_factor, cols, factor);
    for (std::size_t r = 0; r < b.rows; ++r) std::copy_n(b.values + r * b.stride, cols, values[r]);
    block padded{values[0], reduction_lanes, b.rows, factor, b.row_factor};
    sums part{to.row, to.row_square, col, col_square};
    add_block<W, reduction_lanes>(padded, part, lanes);
    for (std::size_t j = 0; j < cols; ++j) {
      to.col[j] += col[j];
      to.col_square[j] += col_square[j];
    }
  }

  template <std::size_t W, std::size_t Cols, bool First>
  SINQ_INLINE static void add_strip(block& b, sums& to, row_lanes& lanes) {
    constexpr std::size_t pieces = Cols / W, row_pieces = reduction_lanes / W;
    vec<Real, W> factor[pieces], x;
    vec<double, W> col[pieces]{}, col_square[pieces]{}, row[row_pieces]{}, row_square[row_pieces]{};
    for (std::size_t p = 0; p < pieces; ++p) load(b.col_factor + p * W, factor[p]);
    for (std::size_t r = 0; r < b.rows; ++r) {
      for (std::size_t p = 0; !First && p < row_pieces; ++p) {
        load(lanes.sum[r] + p * W, row[p]);
        load(lanes.square[r] + p * W, row_square[p]);
      }
      for (std::size_t p = 0; p < pieces; ++p) {
        load(b.values + r * b.stride + p * W, x);
        const vec<double, W> a = __builtin_convertvector((x * factor[p]) * b.row_factor[r], vec<double, W>);
        const vec<double, W> square = a * a;
        row[p % row_pieces] = First && p < row_pieces ? a : row[p % row_pieces] + a;
        row_square[p % row_pieces] = First && p < row_pieces ? square : row_square[p % row_pieces] + square;
        col[p] += a;
        col_square[p] += square;
      }
      for (std::size_t p = 0; p < row_pieces; ++p) {
        store(row[p], lanes.sum[r] + p * W);
        store(row_square[p], lanes.square[r] + p * W);
      }
    }
    for (std::size_t p = 0; p < pieces; ++p) {
      add_to(col[p], to.col + p * W);
      add_to(col_square[p], to.col_square + p * W);
    }
    b.values += Cols;
    b.col_factor += Cols;
    to.col += Cols;
    to.col_square += Cols;
  }

  /// Adds the sums over the lanes of W rows.
  template <std::size_t W>
  SINQ_INLINE static void add_lanes_of(const double (*lanes)[reduction_lanes], double* to) {
    constexpr std::size_t pieces = reduction_lanes / W;
    vec<double, W> row[W], piece[pieces];
    for (std::size_t r = 0; r < W; ++r) {
      for (std::size_t p = 0; p < pieces; ++p) load(lanes[r] + p * W, piece[p]);
      for (std::size_t half = pieces / 2; half > 0; half /= 2)
        for (std::size_t p = 0; p < half; ++p) piece[p] += piece[p + half];
      row[r] = piece[0];
    }
    add_halves<W, W>(row);
    add_to(row[0], to);
  }

  /// One level of the tree for N vectors that hold W / N rows of N lanes each: two at a time become one.
  template <std::size_t W, std::size_t N>
  SINQ_INLINE static void add_halves(vec<double, W> (&rows)[W]) {
    if constexpr (N > 1) {
      for (std::size_t r = 0; r < N / 2; ++r)
        add_two<N / 2>(rows[2 * r], rows[2 * r + 1], rows[r], std::make_index_sequence<W>{});
      add_halves<W, N / 2>(rows);
    }
  }
  template <std::size_t Half, class Vector, std::size_t... Lane>
  SINQ_INLINE static void add_two(const Vector& a, const Vector& b, Vector& to, std::index_sequence<Lane...>) {
    to = __builtin_shufflevector(a, b, (Lane / Half * 2 * Half + Lane % Half)...) +
         __builtin_shufflevector(a, b, (Lane / Half * 2 * Half + Lane % Half + Half)...);
  }

  template <class Vector>
  SINQ_INLINE static void add_to(const Vector& values, double* to) {
    Vector sum;
    load(to, sum);
    store(sum + values, to);
  }
};

/// Variances from n sums and sums of squares, in place of the sums, or -1 where they may be wrong: where cancellation,
/// overflow or underflow spoils them.
struct variance_loop {
  double terms;              ///< of each sum, > 1
  double cancellation_limit; ///< of the ratio of variance to mean square
  double least;              ///< of the variance times their number

  template <std::size_t W>
  SINQ_INLINE static void run(const variance_loop& with, double* sums, const double* squares, std::size_t n) {
    constexpr std::size_t width = W < 2 ? 1 : W / 2;
    const double per_term = 1 / with.terms, per_rest = 1 / (with.terms - 1);
    std::size_t k = 0;
    for (; k + width <= n; k += width) find<width>(with, per_term, per_rest, sums + k, squares + k);
    for (; k < n; ++k) find<1>(with, per_term, per_rest, sums + k, squares + k);
  }

private:
  template <std::size_t W>
  SINQ_INLINE static void find(const variance_loop& with, double per_term, double per_rest, double* sums,
                               const double* squares) {
    vec<double, W> sum, square;
    load(sums, sum);
    load(squares, square);
    const vec<double, W> spread = square - (sum * sum) * per_term;
    vec<double, W> floor = vec<double, W>{} + with.least;
    floor = square * with.cancellation_limit > floor ? square * with.cancellation_limit : floor;
    store(spread > floor ? spread * per_rest : vec<double, W>{} - 1.0, sums);
  }
};

} // namespace sinq::detail

SINQ_SEPARATE_ROUNDING_END
