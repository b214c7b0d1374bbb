#pragma once

/// What cuda::quantize should give, by the CPU.

#include "cuda/device.hpp"

#include <sinq/quant/quantize.hpp>

namespace sinq_test {

/// The CPU's options for what the device does.
[[nodiscard]] inline sinq::quantize_options cpu_options(const sinq::cuda::quantize_options& o) {
  const bool nf4 = o.grid == sinq::grid::nf4;
  sinq::quantize_options to{.method = o.balance ? (nf4 ? sinq::method::sinq_nf4 : sinq::method::sinq)
                                                : (nf4 ? sinq::method::nf4 : sinq::method::rtn),
                            .bits = o.bits,
                            .group_size = o.group_size,
                            .col_scale = sinq::dtype::f32,
                            .symmetric = o.symmetric,
                            .zero = o.zero,
                            .sinkhorn = o.sinkhorn};
  to.refine = sinq::refine_mode::none;
  return to;
}

/// What the device should make of a weight.
[[nodiscard]] inline sinq::cuda::device_image quantized_on_cpu(sinq::matrix_view<const float> w,
                                                               const sinq::cuda::quantize_options& o) {
  const auto q = value_of(sinq::quantize(w, cpu_options(o)));
  return value_of(sinq::cuda::to_device_layout(value_of(sinq::pack(q))));
}

} // namespace sinq_test
