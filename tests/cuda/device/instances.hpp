#pragma once

/// Everything that sinq::cuda can launch, for a compiler of CUDA: the public functions for each type, and through them
/// each kernel for each form of codes.

#include <sinq/cuda.hpp>

namespace instances {

using namespace sinq;

template <class T>
void use(const cuda::device_matrix& q, const T* x, void* y, cuda::workspace& work) {
  const cuda::device_view<const T> from{x, 16, 64};
  static_cast<void>(cuda::matmul(q, from, cuda::device_view<T>{static_cast<T*>(y), 16, 64}, work));
  static_cast<void>(cuda::matmul(q, from, cuda::device_view<float>{static_cast<float*>(y), 16, 64}, work));
  static_cast<void>(cuda::dequantize(q, cuda::device_view<T>{static_cast<T*>(y), 64, 64}));
  static_cast<void>(cuda::quantize(from, {}, work));
}

} // namespace instances
