#pragma once

/// What matmul should give, in double and from its definition, and how far from it sums of floats may be.

#include "support/compare.hpp"
#include "support/methods.hpp"
#include "support/random_matrices.hpp"

#include <sinq/kernels/matmul.hpp>
#include <sinq/pack/pack.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <bit>
#include <cmath>
#include <span>
#include <vector>

namespace sinq_test {

using Eigen::Index;
using doubles = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Activations of very different sizes.
[[nodiscard]] inline matrix tokens(std::size_t count, std::size_t cols, std::uint64_t seed = 5) {
  random_source random{seed};
  matrix x{count, cols};
  for (float& value : x.values) value = static_cast<float>(random.normal() * std::exp(random.normal()));
  return x;
}

/// Products, what enters them, and what one of them may be off beside that. [M x N] each
struct products {
  doubles y;
  doubles terms; ///< sums of the magnitudes of all that is added up
  doubles doubt; ///< what roundings are worth that come so close to a tie that floats may take the other side
};

/// The columns of a format that share a scale where activations are rounded to bytes, or 0: they are multiplied as
/// floats.
[[nodiscard]] inline std::size_t byte_step(const sinq::matrix_format& f) {
  if (f.grid != sinq::grid::uniform && f.bits > 4) return 0;
  if (f.group_size % 64 == 0 || f.group_size >= f.cols) return 64;
  return f.group_size % 32 == 0 ? 32 : 0;
}

namespace detail {

/// Half a unit in the last place of a float, of its own size: what a rounding may cost.
inline constexpr double half_ulp = 0x1p-24;

/// What `count` roundings cost at most: each multiplies by 1 + d, |d| <= half_ulp.
[[nodiscard]] constexpr double cost_of_roundings(std::size_t count) {
  const double all = static_cast<double>(count) * half_ulp;
  return all / (1 - all);
}

/// Roundings of x' = (R x) t: each step of the rotation and its factor, which are of the size of what they add and so
/// on average of that of x', and the product with t.
[[nodiscard]] inline std::size_t roundings_of_activations(const sinq::matrix_format& f) {
  return (f.rotation == 0 ? 0 : static_cast<std::size_t>(std::countr_zero(f.rotation)) + 1) + 1;
}

/// Sums that enter a y one after the other: groups, cut into blocks of 64 columns, or steps of bytes.
[[nodiscard]] inline std::size_t segments(const sinq::matrix_format& f) {
  std::size_t count = 0;
  for (std::size_t j = 0; j < f.cols; ++j)
    if (j % 64 == 0 || j % f.group_size == 0) ++count;
  return count;
}

} // namespace detail

/// How far sums of floats may be from `product_oracle::exact`, of the terms. A term is rounded as often as x'; once as
/// a product; with each of the up to 64 others of its segment and the 4 sums that join chains or lanes; as s, z and
/// their difference enter, 3 times; and with each segment.
[[nodiscard]] inline double exact_tolerance(const sinq::matrix_format& f) {
  const std::size_t longest = std::min({std::size_t{64}, f.group_size, f.cols});
  return detail::cost_of_roundings(detail::roundings_of_activations(f) + 1 + longest + 4 + 3 + detail::segments(f));
}

/// How far they may be from `product_oracle::bytes`: sums of a step are whole numbers. A term is rounded as x' is, by
/// which unit differs; in unit, unit times the sum, z times the sum, their difference, s, and with each step; the scale
/// and zero point of a codebook 5 times more.
[[nodiscard]] inline double bytes_tolerance(const sinq::matrix_format& f) {
  const std::size_t steps = (f.cols + byte_step(f) - 1) / byte_step(f);
  return detail::cost_of_roundings(detail::roundings_of_activations(f) + 5 + 5 + steps);
}

/// How far they may be from `product_oracle::bf16`, whose products are exact in floats: all columns are added up.
[[nodiscard]] inline double bf16_tolerance(const sinq::matrix_format& f) {
  return detail::cost_of_roundings(f.cols);
}

/// The products of a weight with tokens by the three definitions of `matmul`.
class product_oracle {
public:
  /// @param q  borrowed
  product_oracle(const sinq::quantized_matrix& q, const matrix& x)
      : q_{q}, f_{q.format}, x_{x.view().eigen().cast<double>()}, x_size_{x_.cwiseAbs()}, scale_{size()}, zero_{size()},
        level_{size()}, t_{doubles::Ones(rows(f_.row_tiles()), rows(f_.cols))} {
    if (f_.rotation != 0) rotate();
    for (std::size_t i = 0; i < f_.rows; ++i)
      for (std::size_t j = 0; j < f_.cols; ++j) {
        const std::size_t g = j / f_.group_size;
        scale_(rows(i), rows(j)) = double{q.scale_matrix()(i, g)};
        zero_(rows(i), rows(j)) = double{q.zero_at(i, g)};
        level_(rows(i), rows(j)) = double{q.levels()[q.code_matrix()(i, j)]};
      }
    for (Index tile = 0; tile < t_.rows(); ++tile)
      for (Index j = 0; j < t_.cols(); ++j)
        t_(tile, j) =
            double{q.col_scale_at(static_cast<std::size_t>(tile) * f_.tile_rows, static_cast<std::size_t>(j))};
  }

  /// y = sum s (level - z) t (R x)
  [[nodiscard]] products exact() const {
    return for_each_tile([&](Index tile, Index begin, Index count, products& p) {
      const doubles x = x_ * t_.row(tile).asDiagonal();
      multiply(x, x.cwiseAbs(), level_, zero_, scale_, begin, count, p);
    });
  }

  /// The same with x' rounded to whole multiples of unit = max |x'| / 127 of its step, and a codebook's levels to those
  /// of 1/127 of the largest one. @pre byte_step != 0
  [[nodiscard]] products bytes() const {
    doubles level = level_, zero = zero_, scale = scale_;
    if (f_.grid != sinq::grid::uniform) {
      float most = 0;
      for (const float value : q_.levels()) most = std::max(most, std::fabs(value));
      level = level_.unaryExpr(
          [&](double value) { return 128 + static_cast<double>(std::lround(127 * static_cast<float>(value) / most)); });
      scale *= double{most} / 127;
      zero = 128 + (zero_ * (127 / double{most})).array();
    }
    return for_each_tile([&](Index tile, Index begin, Index count, products& p) {
      std::vector<doubtful> doubts;
      const doubles x = in_bytes(tile, doubts);
      multiply(x, x.cwiseAbs(), level, zero, scale, begin, count, p);
      for (const doubtful& d : doubts)
        for (Index i = begin; i < begin + count; ++i)
          p.doubt(d.row, i) += d.by * std::fabs(scale(i, d.col) * (level(i, d.col) - zero(i, d.col)));
    });
  }

  /// The same with x' rounded to bf16, and weights s (level - z) before_cut cut to it.
  [[nodiscard]] products bf16() const {
    std::vector<doubtful> doubts;
    doubles w = scale_.cwiseProduct(level_ - zero_);
    for (Index i = 0; i < w.rows(); ++i)
      for (Index j = 0; j < w.cols(); ++j) {
        w(i, j) *= before_cut;
        // s is rounded, the product s z, and its difference from s level
        const double unsure =
            detail::half_ulp * (before_cut * std::fabs(scale_(i, j) * zero_(i, j)) + 2 * std::fabs(w(i, j)));
        w(i, j) = cut_to_bf16(w(i, j), unsure, i, j, doubts);
      }
    return for_each_tile([&](Index tile, Index begin, Index count, products& p) {
      std::vector<doubtful> of_x;
      const doubles x = in_bf16(tile, of_x);
      p.y.middleCols(begin, count) = x * w.middleRows(begin, count).transpose();
      p.terms.middleCols(begin, count) = x.cwiseAbs() * w.middleRows(begin, count).cwiseAbs().transpose();
      for (const doubtful& d : of_x)
        p.doubt.row(d.row).segment(begin, count) += d.by * w.col(d.col).segment(begin, count).transpose().cwiseAbs();
      for (const doubtful& d : doubts)
        if (d.row >= begin && d.row < begin + count) p.doubt.col(d.row) += d.by * x.col(d.col).cwiseAbs();
    });
  }

private:
  /// A number that may be rounded to one or the other side, `by` apart.
  struct doubtful {
    Index row, col;
    double by;
  };

  [[nodiscard]] static Index rows(std::size_t count) { return static_cast<Index>(count); }
  [[nodiscard]] doubles size() const { return doubles(rows(f_.rows), rows(f_.cols)); }

  /// R = diag(H, H, ...),  H[a][b] = (-1)^popcount(a & b) / sqrt(block)
  void rotate() {
    const Index block = rows(f_.rotation);
    const double norm = 1 / std::sqrt(static_cast<double>(block));
    doubles h(block, block);
    for (Index a = 0; a < block; ++a)
      for (Index b = 0; b < block; ++b) h(a, b) = std::popcount(static_cast<unsigned>(a & b)) % 2 == 0 ? norm : -norm;
    for (Index begin = 0; begin < x_.cols(); begin += block) {
      x_.middleCols(begin, block) = (x_.middleCols(begin, block) * h).eval();
      x_size_.middleCols(begin, block) = (x_size_.middleCols(begin, block) * h.cwiseAbs()).eval();
    }
  }

  template <class F>
  [[nodiscard]] products for_each_tile(F&& add) const {
    const doubles zeros = doubles::Zero(x_.rows(), scale_.rows());
    products p{zeros, zeros, zeros};
    const auto height = rows(f_.tile_height());
    for (Index tile = 0; tile < t_.rows(); ++tile)
      add(tile, tile * height, std::min(height, scale_.rows() - tile * height), p);
    return p;
  }

  /// Rows [begin, begin + count) of y = x' (s (level - z))^T, zero points taken apart in the terms.
  static void multiply(const doubles& x, const doubles& size, const doubles& level, const doubles& zero,
                       const doubles& scale, Index begin, Index count, products& p) {
    const auto of = [&](const doubles& all) { return all.middleRows(begin, count).array(); };
    const doubles w = of(scale) * (of(level) - of(zero));
    const doubles w_size = of(scale).abs() * (of(level).abs() + of(zero).abs());
    p.y.middleCols(begin, count) = x * w.transpose();
    p.terms.middleCols(begin, count) = size * w_size.transpose();
  }

  /// x' of a tile as bytes. Where floats round x' / unit, they have rounded x' and the largest one of its step before,
  /// by what |R| |x| t says, and do so three times more.
  [[nodiscard]] doubles in_bytes(Index tile, std::vector<doubtful>& doubts) const {
    doubles x = x_ * t_.row(tile).asDiagonal();
    const doubles sizes = x_size_ * t_.row(tile).cwiseAbs().asDiagonal();
    const auto before = static_cast<double>(detail::roundings_of_activations(f_));
    for (Index m = 0; m < x.rows(); ++m)
      for (Index begin = 0; begin < x.cols(); begin += rows(byte_step(f_))) {
        const Index end = std::min(x.cols(), begin + rows(byte_step(f_)));
        const double most = x.row(m).segment(begin, end - begin).cwiseAbs().maxCoeff();
        if (most == 0) continue;
        const double unit = most / 127;
        const double most_size = sizes.row(m).segment(begin, end - begin).maxCoeff();
        const double unsure = 127 * detail::half_ulp * (2 * before * most_size / most + 3);
        for (Index j = begin; j < end; ++j) {
          const double of_unit = x(m, j) / unit, whole = std::nearbyint(of_unit);
          if (std::fabs(std::fabs(of_unit - whole) - 0.5) < unsure) doubts.push_back({m, j, unit});
          x(m, j) = unit * whole;
        }
      }
    return x;
  }

  /// x' of a tile in bf16.
  [[nodiscard]] doubles in_bf16(Index tile, std::vector<doubtful>& doubts) const {
    doubles x = x_ * t_.row(tile).asDiagonal();
    const doubles sizes = x_size_ * t_.row(tile).cwiseAbs().asDiagonal();
    const double before = detail::half_ulp * static_cast<double>(detail::roundings_of_activations(f_));
    for (Index m = 0; m < x.rows(); ++m)
      for (Index j = 0; j < x.cols(); ++j) x(m, j) = rounded_to_bf16(x(m, j), before * sizes(m, j), m, j, doubts);
    return x;
  }

  static constexpr int dropped_bits = 45; // of the 52 bits of a double's fraction
  static constexpr std::uint64_t dropped = (std::uint64_t{1} << dropped_bits) - 1;

  /// The number of 8 significant bits that is nearest. One that is a tie, which goes to the even one, is a tie in
  /// floats too, and no matter of doubt.
  /// @param unsure  how far floats may be from it
  [[nodiscard]] static double rounded_to_bf16(double value, double unsure, Index row, Index col,
                                              std::vector<doubtful>& doubts) {
    constexpr std::uint64_t half = std::uint64_t{1} << (dropped_bits - 1);
    const auto bits = std::bit_cast<std::uint64_t>(value);
    const auto beyond = static_cast<double>(bits & dropped) - static_cast<double>(half);
    note_doubt(bits, std::fabs(beyond), unsure, row, col, doubts);
    const std::uint64_t below_half = (bits >> dropped_bits) % 2 == 1 ? 0 : 1;
    return std::bit_cast<double>((bits + half - below_half) & ~dropped);
  }
  /// The one that is no larger in magnitude.
  [[nodiscard]] static double cut_to_bf16(double value, double unsure, Index row, Index col,
                                          std::vector<doubtful>& doubts) {
    const auto bits = std::bit_cast<std::uint64_t>(value);
    const auto above = static_cast<double>(bits & dropped);
    const double distance = std::min(above, static_cast<double>(dropped) + 1 - above);
    note_doubt(bits, std::max(distance, 1.0), unsure, row, col, doubts);
    return std::bit_cast<double>(bits & ~dropped);
  }
  /// @param distance  from where the result changes, in units of the last bit of a double
  static void note_doubt(std::uint64_t bits, double distance, double unsure, Index row, Index col,
                         std::vector<doubtful>& doubts) {
    const double binade = std::bit_cast<double>(bits & 0x7ff0000000000000u);
    if (distance > 0 && distance * 0x1p-52 * binade < unsure) doubts.push_back({row, col, binade * 0x1p-7});
  }
  /// See amx::before_cut.
  static constexpr double before_cut = double{1 + 0.7213f / 256};

  const sinq::quantized_matrix& q_;
  const sinq::matrix_format& f_;
  doubles x_, x_size_;           ///< [M x K] R x and |R| |x|
  doubles scale_, zero_, level_; ///< [N x K]
  doubles t_;                    ///< [row_tiles x K]
};

/// The same with a bias [N].
[[nodiscard]] inline products with_bias(products p, std::span<const float> bias) {
  p.y.rowwise() += Eigen::Map<const Eigen::RowVectorXf>{bias.data(), p.y.cols()}.cast<double>();
  return p;
}

/// |y - expected| <= tolerance terms + doubt, for the first tokens of those that are expected.
[[nodiscard]] inline verdict close_to_products(const matrix& y, const products& expected, double tolerance) {
  const auto tokens = static_cast<std::size_t>(expected.y.rows()), rows = static_cast<std::size_t>(expected.y.cols());
  if (y.rows == 0 || y.rows > tokens || y.cols != rows)
    return detail::differs("y is ", y.rows, " x ", y.cols, ", expected ", tokens, " x ", rows, " or fewer tokens");
  for (std::size_t n = 0; n < y.values.size(); ++n) {
    const double difference = std::fabs(double{y.values[n]} - expected.y.data()[n]);
    const double allowed = tolerance * expected.terms.data()[n] + expected.doubt.data()[n];
    if (!(difference <= allowed))
      return detail::differs("y of token ", n / y.cols, ", row ", n % y.cols, " is ", y.values[n], ", expected ",
                             expected.y.data()[n], " within ", allowed);
  }
  return {};
}

/// |y - other| <= tolerance terms: products of the same activations, rounded alike.
[[nodiscard]] inline verdict close_to_each_other(const matrix& y, const matrix& other, const products& expected,
                                                 double tolerance) {
  if (y.rows != other.rows || y.cols != other.cols)
    return detail::differs("y is ", y.rows, " x ", y.cols, ", expected ", other.rows, " x ", other.cols);
  for (std::size_t n = 0; n < y.values.size(); ++n) {
    const double allowed = tolerance * expected.terms.data()[n];
    if (!(std::fabs(double{y.values[n]} - double{other.values[n]}) <= allowed))
      return detail::differs("y of token ", n / y.cols, ", row ", n % y.cols, " is ", y.values[n], ", not ",
                             other.values[n], " within ", allowed);
  }
  return {};
}

[[nodiscard]] inline sinq::panel_matrix panels(const sinq::quantized_matrix& q) {
  const auto p = sinq::pack(q);
  if (!p) FAIL(p.error().message);
  auto w = sinq::to_panels(*p);
  if (!w) FAIL(w.error().message);
  return *std::move(w);
}

/// The products with the first tokens, or all.
[[nodiscard]] inline matrix multiplied(const sinq::panel_matrix& w, const matrix& x,
                                       const sinq::matmul_options& options = {.precision = sinq::precision::exact},
                                       std::size_t count = 0) {
  matrix y{count == 0 ? x.rows : count, w.format.rows};
  const sinq::matrix_view<const float> first{x.values.data(), y.rows, x.cols};
  const auto done = sinq::matmul(w, first, y.view(), options);
  if (!done) FAIL(done.error().message);
  return y;
}

} // namespace sinq_test
