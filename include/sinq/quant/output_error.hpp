#pragma once

#include "../math/input_moments.hpp"
#include "../math/stats.hpp"

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

namespace sinq {

/// How the errors x d of single outputs are summed up.
enum class output_loss : std::uint8_t {
  squared,  ///< E (x d)^2, from a sample of x, or as d E[x x^T] d^T
  absolute, ///< E |x d|, from a sample of x
};

/// What rows d of a weight error do to the outputs of a layer: E over its inputs x of (x d)^2 or |x d|.
/// A sample is used where there is one that is no larger than the second moments or the only source; else these.
/// Numerics: f64 sums of exact products in the order of the columns; x d is rounded to f32 before it is squared or, for
/// second moments, before the last sum. The same for every way to cut the rows. Cost O(K min(T, K)) a row.
class output_error {
public:
  /// @param inputs  checked (input_moments::check), with what `missing` asks for; only read here
  output_error(const input_moments& inputs, output_loss loss) : loss_{loss} {
    const auto tokens = static_cast<std::size_t>(inputs.inputs.rows());
    const auto size = static_cast<std::size_t>(inputs.hessian.rows());
    from_sample_ = tokens > 0 && (loss == output_loss::absolute || size == 0 || tokens <= size);
    const input_moments::row_major& from = from_sample_ ? inputs.inputs : inputs.hessian;
    cols_ = static_cast<std::size_t>(from.cols());
    count_ = static_cast<std::size_t>(from.rows());
    packed_.resize((count_ + width - 1) / width * width * cols_);
    for (std::size_t t = 0; t < count_; ++t)
      for (std::size_t j = 0; j < cols_; ++j)
        packed_[(t / width * cols_ + j) * width + t % width] =
            from(static_cast<Eigen::Index>(t), static_cast<Eigen::Index>(j));
  }

  /// What a loss needs that is not there, for people; empty if all is.
  [[nodiscard]] static std::string_view missing(const input_moments& inputs, output_loss loss) {
    if (inputs.inputs.rows() > 0) return {};
    if (loss == output_loss::absolute) return "inputs, a sample [tokens x K] of x";
    return inputs.hessian.rows() > 0 ? "" : "hessian, E[x x^T] [K x K], or inputs, a sample [tokens x K] of x";
  }

  /// The loss of each row; not finite where one overflows.
  /// @param d  [rows x K],  @param loss [rows]
  void operator()(matrix_view<const float> d, std::span<double> loss) const {
    SINQ_ASSERT(d.cols() == cols_ && loss.size() == d.rows());
    std::size_t i = 0;
    for (; i + 2 <= d.rows(); i += 2) measure<2>(d.block(i, 0, 2, cols_), loss.subspan(i, 2));
    if (i < d.rows()) measure<1>(d.block(i, 0, 1, cols_), loss.subspan(i, 1));
  }

private:
  static constexpr std::size_t width = 8; // rows of x that are multiplied at once

  template <std::size_t Rows>
  void measure(matrix_view<const float> d, std::span<double> loss) const {
    std::array<double, Rows> sum{};
    for (std::size_t begin = 0; begin < count_; begin += width) {
      double product[Rows][width] = {};
      const float* x = packed_.data() + begin * cols_;
      for (std::size_t j = 0; j < cols_; ++j, x += width)
        for (std::size_t r = 0; r < Rows; ++r) {
          const double factor = d.data()[r * d.stride() + j];
          for (std::size_t t = 0; t < width; ++t) product[r][t] += factor * static_cast<double>(x[t]);
        }
      for (std::size_t r = 0; r < Rows; ++r)
        for (std::size_t t = 0; t < std::min(width, count_ - begin); ++t)
          sum[r] += term(static_cast<float>(product[r][t]), from_sample_ ? 0.0f : d(r, begin + t));
    }
    for (std::size_t r = 0; r < Rows; ++r) loss[r] = from_sample_ ? sum[r] / static_cast<double>(count_) : sum[r];
  }

  /// What one product adds: (x d)^2 or |x d|, or for second moments d_j times (H d)_j.
  [[nodiscard]] double term(float product, float error) const {
    if (!from_sample_) return static_cast<double>(product) * static_cast<double>(error);
    if (loss_ == output_loss::absolute) return std::fabs(static_cast<double>(product));
    return static_cast<double>(product) * static_cast<double>(product);
  }

  output_loss loss_;
  bool from_sample_ = false;
  std::size_t cols_ = 0;
  std::size_t count_ = 0;     ///< tokens, or rows of the second moments
  std::vector<float> packed_; ///< rows of x in blocks of `width`: [block][column][row of the block]
};

} // namespace sinq
