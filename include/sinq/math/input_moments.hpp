#pragma once

#include "../core/error.hpp"
#include "../core/types.hpp"

#include <Eigen/Core>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace sinq {

/// What is known of the inputs x of a layer: any of these, from many tokens or few. Nothing here needs a model.
struct input_moments {
  using row_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  std::vector<float> second_moment; ///< [K] E[x_j^2]
  std::vector<float> mean_abs;      ///< [K] E|x_j|
  row_major hessian;                ///< [K x K] E[x x^T], symmetric
  row_major inputs;                 ///< [T x K] a sample of x itself

  /// Moments of a sample [T x K], which is kept. Sums in f64.
  [[nodiscard]] static input_moments of(row_major sample) {
    input_moments m;
    m.inputs = std::move(sample);
    const std::vector<double> squares = m.energies();
    m.second_moment.assign(squares.begin(), squares.end());
    m.mean_abs = m.magnitudes();
    m.hessian = m.correlations().cast<float>();
    return m;
  }

  /// E[x x^T] in f64 from the hessian, or from the sample; 0 x 0 if neither is there.
  [[nodiscard]] Eigen::MatrixXd correlations() const {
    if (hessian.size() > 0 || inputs.rows() == 0) return hessian.cast<double>();
    const Eigen::MatrixXd x = inputs.cast<double>();
    return (x.transpose() * x) / static_cast<double>(x.rows());
  }

  /// E[x_j^2] from whichever part has it; empty if none does.
  [[nodiscard]] std::vector<double> energies() const {
    std::vector<double> out(second_moment.begin(), second_moment.end());
    if (out.empty())
      for (Eigen::Index j = 0; j < hessian.rows(); ++j) out.push_back(hessian(j, j));
    if (out.empty() && inputs.rows() > 0)
      for (Eigen::Index j = 0; j < inputs.cols(); ++j)
        out.push_back(inputs.col(j).cast<double>().squaredNorm() / static_cast<double>(inputs.rows()));
    return out;
  }

  /// E|x_j| from mean_abs, or from the sample; empty if neither is there.
  [[nodiscard]] std::vector<float> magnitudes() const {
    if (!mean_abs.empty() || inputs.rows() == 0) return mean_abs;
    std::vector<double> sum(static_cast<std::size_t>(inputs.cols()));
    for (Eigen::Index t = 0; t < inputs.rows(); ++t)
      for (std::size_t j = 0; j < sum.size(); ++j)
        sum[j] += static_cast<double>(std::fabs(inputs(t, static_cast<Eigen::Index>(j))));
    std::vector<float> mean;
    mean.reserve(sum.size());
    for (const double total : sum) mean.push_back(static_cast<float>(total / static_cast<double>(inputs.rows())));
    return mean;
  }

  /// Whether every part that is there has K columns and possible values.
  /// @errors  errc::invalid_argument (names the part, its size and K), errc::non_finite (a value that is not finite, or
  ///          a negative moment)
  [[nodiscard]] result<void> check(std::size_t cols) const {
    const auto size = [&](const char* part, std::size_t is) -> result<void> {
      if (is == 0 || is == cols) return {};
      return make_error(errc::invalid_argument, "input moments: ", part, " is for ", is, " columns, expected ", cols);
    };
    if (auto ok = size("second_moment", second_moment.size()); !ok) return ok;
    if (auto ok = size("mean_abs", mean_abs.size()); !ok) return ok;
    if (auto ok = size("hessian", static_cast<std::size_t>(hessian.cols())); !ok) return ok;
    if (auto ok = size("inputs", static_cast<std::size_t>(inputs.cols())); !ok) return ok;
    if (hessian.rows() != hessian.cols())
      return make_error(errc::invalid_argument, "input moments: hessian is ", hessian.rows(), " x ", hessian.cols(),
                        ", expected a square");
    const auto values = [&](const char* part, const float* data, std::size_t count, float least) -> result<void> {
      for (std::size_t n = 0; n < count; ++n)
        if (!is_finite(data[n]) || data[n] < least)
          return make_error(errc::non_finite, "input moments: ", part, " holds ", data[n], " at column ", n % cols);
      return {};
    };
    constexpr float any = -std::numeric_limits<float>::max();
    if (auto ok = values("second_moment", second_moment.data(), second_moment.size(), 0); !ok) return ok;
    if (auto ok = values("mean_abs", mean_abs.data(), mean_abs.size(), 0); !ok) return ok;
    for (Eigen::Index j = 0; j < hessian.rows(); ++j)
      if (auto ok = values("hessian's diagonal", &hessian(j, j), 1, 0); !ok) return ok;
    if (auto ok = values("hessian", hessian.data(), static_cast<std::size_t>(hessian.size()), any); !ok) return ok;
    return values("inputs", inputs.data(), static_cast<std::size_t>(inputs.size()), any);
  }
};

} // namespace sinq
