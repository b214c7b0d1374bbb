#pragma once

#include <sinq/core/matrix_view.hpp>

namespace engine {

/// c = a b^T, [M x N] from [M x K] and [N x K], in the calling thread: products of floats are OpenBLAS's.
void multiply_transposed(sinq::matrix_view<const float> a, sinq::matrix_view<const float> b,
                         sinq::matrix_view<float> c);
/// c = a b, [M x N] from [M x K] and [K x N], in the calling thread.
void multiply(sinq::matrix_view<const float> a, sinq::matrix_view<const float> b, sinq::matrix_view<float> c);

} // namespace engine
