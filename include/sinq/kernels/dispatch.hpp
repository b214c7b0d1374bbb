#pragma once

#include "../core/isa.hpp"
#include "cpu/avx2.hpp"
#include "cpu/neon.hpp"
#include "cpu/strips.hpp"
#include "cpu/vnni.hpp"
#include "exact.hpp"
#include "int8.hpp"

namespace sinq::detail {

/// A kernel of one panel.
using kernel_function = void (*)(const panel_product&);

/// Calls f with std::integral_constant<int, bits>. @pre is_supported_bits(bits)
template <class F>
auto with_bits(int bits, F&& f) {
  return with_layout(bits, [&](auto layout) { return f(std::integral_constant<int, layout.bits>{}); });
}

[[nodiscard]] inline kernel_function exact_kernel(int bits) {
  return with_bits(bits, [](auto width) -> kernel_function { return multiply_exact<width()>; });
}
/// The kernel of bytes for the instruction set in use. Without dot products of bytes, AVX-512 takes that of AVX2, and
/// AArch64 the one that is written down in whole numbers.
[[nodiscard]] inline kernel_function int8_kernel(int bits) {
  return with_bits(bits, [](auto width) -> kernel_function {
#if SINQ_X86
    static const bool has_dot_products = vnni::has_dot_products();
    if (current_isa() == isa::avx512 && has_dot_products) return multiply_by<vnni::kernel, width()>;
    if (current_isa() == isa::avx2 || current_isa() == isa::avx512) return multiply_by<avx2::kernel, width()>;
#elif defined(__aarch64__)
    static const bool has_dot_products = neon::has_dot_products();
    if (current_isa() == isa::neon && has_dot_products) return multiply_by<neon::kernel, width()>;
#endif
    return multiply_int8<width()>;
  });
}

} // namespace sinq::detail
