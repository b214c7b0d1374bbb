#include "linear.hpp"

#include "blas.hpp"

namespace engine {
namespace {

/// Rows become floats a cacheful at a time, so that whatever their type a product reads them from memory once.
void multiply_floats(const float_matrix& w, sinq::matrix_view<const float> x, sinq::matrix_view<float> y,
                     sinq::executor& threads) {
  constexpr std::size_t cacheful = std::size_t{1} << 16;
  const std::size_t grain = std::clamp<std::size_t>(cacheful / w.cols, 16, 512);
  const sinq::weight_view rows = w.view();
  const auto in_place = rows.floats();
  const auto some = [&](std::size_t begin, std::size_t end) -> sinq::result<void> {
    const sinq::matrix_view<float> out{y.data() + begin, y.rows(), end - begin, y.stride()};
    if (in_place) {
      multiply_transposed(x, in_place->block(begin, 0, end - begin, w.cols), out);
      return {};
    }
    std::vector<float> floats((end - begin) * w.cols);
    const sinq::matrix_view<float> block{floats.data(), end - begin, w.cols};
    for (std::size_t i = begin; i < end; ++i) rows.load(i, 0, block.row(i - begin));
    multiply_transposed(x, block, out);
    return {};
  };
  const auto done = sinq::parallel_for(threads, w.rows, grain, some);
  SINQ_ASSERT(done.has_value());
}

} // namespace

std::size_t linear::rows() const {
  const auto* const floats = std::get_if<float_matrix>(&weight_);
  return floats != nullptr ? floats->rows : std::get<sinq::panel_matrix>(weight_).format.rows;
}

std::size_t linear::cols() const {
  const auto* const floats = std::get_if<float_matrix>(&weight_);
  return floats != nullptr ? floats->cols : std::get<sinq::panel_matrix>(weight_).format.cols;
}

std::size_t linear::size_bytes() const {
  const auto* const floats = std::get_if<float_matrix>(&weight_);
  return floats != nullptr ? floats->bytes.size() : std::get<sinq::panel_matrix>(weight_).size_bytes();
}

sinq::result<void> linear::operator()(sinq::matrix_view<const float> x, sinq::matrix_view<float> y,
                                      const compute& with) const {
  SINQ_ASSERT(x.cols() == cols() && y.cols() == rows() && x.rows() == y.rows());
  if (const auto* const panels = std::get_if<sinq::panel_matrix>(&weight_))
    return sinq::matmul(*panels, x, y, {.precision = with.precision, .bias = bias_, .threads = with.threads});
  multiply_floats(std::get<float_matrix>(weight_), x, y, *with.threads);
  if (!bias_.empty())
    for (std::size_t m = 0; m < y.rows(); ++m)
      for (std::size_t n = 0; n < y.cols(); ++n) y(m, n) += bias_[n];
  return {};
}

} // namespace engine
