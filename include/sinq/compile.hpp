#pragma once

/// For the one unit of a program that compiles what all others, in which SINQ_SEPARATE_COMPILATION is defined, only
/// declare. Without that macro every unit compiles all that it uses, and this header is not needed.

#include "kernels/float_matmul.hpp"
#include "kernels/matmul.hpp"
#include "quant/feedback.hpp"
#include "quant/quantize.hpp"

namespace sinq::detail {

template result<quantized_matrix> run_method<void>(const weight_view&, const quantize_options&, block_sink*);
template result<void> run_feedback<void>(const weight_view&, quantized_matrix&, const input_moments&,
                                         const feedback_options&, const run_options&);
template result<void> run_matmul<void>(const panel_matrix&, const weight_view&, matrix_view<float>,
                                       const matmul_options&);
template result<void> run_float_matmul<void>(const weight_view&, matrix_view<const float>, matrix_view<float>,
                                             const matmul_options&);

} // namespace sinq::detail
