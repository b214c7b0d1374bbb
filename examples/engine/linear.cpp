#include "linear.hpp"

namespace engine {

sinq::precision parse_precision(std::string_view name) {
  if (name == "exact") return sinq::precision::exact;
  return name == "int8" ? sinq::precision::int8 : sinq::precision::automatic;
}

std::size_t linear::rows() const {
  const auto* const floats = std::get_if<float_matrix>(&weight_);
  return floats != nullptr ? floats->rows : std::get<sinq::panel_matrix>(weight_).format.rows;
}

std::size_t linear::cols() const {
  const auto* const floats = std::get_if<float_matrix>(&weight_);
  return floats != nullptr ? floats->cols : std::get<sinq::panel_matrix>(weight_).format.cols;
}

std::size_t linear::bytes() const {
  if (const auto* const panels = std::get_if<sinq::panel_matrix>(&weight_)) return panels->size_bytes();
  return rows() * cols() * size_bytes(std::get<float_matrix>(weight_).type);
}

sinq::result<void> linear::operator()(sinq::matrix_view<const float> x, sinq::matrix_view<float> y,
                                      const compute& with) const {
  SINQ_ASSERT(x.cols() == cols() && y.cols() == rows() && x.rows() == y.rows());
  const sinq::matmul_options options{.precision = with.precision, .bias = bias_, .threads = with.threads};
  if (const auto* const panels = std::get_if<sinq::panel_matrix>(&weight_)) return sinq::matmul(*panels, x, y, options);
  return sinq::matmul(std::get<float_matrix>(weight_).view(), x, y, options);
}

} // namespace engine
