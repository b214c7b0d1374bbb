#pragma once

#include "../core/isa.hpp"
#include "cpu/amx_bf16.hpp"
#include "cpu/amx_bytes.hpp"
#include "cpu/avx2.hpp"
#include "cpu/neon.hpp"
#include "cpu/strips.hpp"
#include "cpu/vnni.hpp"
#include "exact.hpp"
#include "int8.hpp"

namespace sinq::detail {

/// A kernel, and what it takes at once.
struct kernel {
  void (*multiply)(const panel_product&);
  activation_form form;
  std::size_t panels = panels_at_once;
  std::size_t tokens = 64;
  std::size_t most_more = 0; ///< see filled_up
  bool reads_halves = false; ///< whether it takes scales and zero points of f16
  bool reads_codes = false;  ///< whether it takes those in codes
};

/// Calls f with std::integral_constant<int, bits>. @pre is_supported_bits(bits)
template <class F>
auto with_bits(int bits, F&& f) {
  return with_layout(bits, [&](auto layout) { return f(std::integral_constant<int, layout.bits>{}); });
}

[[nodiscard]] inline kernel exact_kernel(int bits) {
  return with_bits(bits, [](auto width) {
    return kernel{.multiply = multiply_exact<width()>, .form = activation_form::floats, .most_more = 1};
  });
}

#if SINQ_AMX
/// The kernels of AMX, on its tiles or on what stands for them in a test: of bytes, for steps of 64 columns, and of
/// bf16.
template <class Tiles>
[[nodiscard]] kernel bytes_on_tiles(int bits) {
  return with_bits(bits, [](auto width) {
    return kernel{.multiply = amx::multiply_bytes<Tiles, width()>,
                  .form = activation_form::byte_tiles,
                  .panels = amx::most_byte_panels,
                  .tokens = tile_tokens,
                  .reads_halves = true};
  });
}
template <class Tiles>
[[nodiscard]] kernel bf16_on_tiles(int bits) {
  return with_bits(bits, [](auto width) {
    return kernel{.multiply = amx::multiply_bf16<Tiles, width()>,
                  .form = activation_form::tiles,
                  .panels = amx::most_panels,
                  .tokens = amx::most_tokens,
                  .reads_halves = true};
  });
}
#endif

/// The kernel of bytes for the instruction set in use. Without dot products of bytes, AVX-512 takes that of AVX2, and
/// AArch64 the one that is written down in whole numbers. Tiles of AMX take more than eight tokens.
/// @param step  int8_step of a format
[[nodiscard]] inline kernel int8_kernel(int bits, [[maybe_unused]] std::size_t step,
                                        [[maybe_unused]] std::size_t tokens) {
  [[maybe_unused]] const isa here = current_isa();
#if SINQ_AMX
  if (here == isa::amx && tokens >= amx::fewest_bf16_tokens(step)) return bf16_on_tiles<amx::hardware_tiles>(bits);
  if (here == isa::amx && tokens >= amx::fewest_tokens) return bytes_on_tiles<amx::hardware_tiles>(bits);
#endif
  return with_bits(bits, [&](auto width) {
    kernel k{.multiply = multiply_int8<width()>, .form = activation_form::bytes};
#if SINQ_X86
    static const bool has_dot_products = vnni::has_dot_products();
    if (vector_floats(here) == 16 && has_dot_products) {
      k.multiply = multiply_by<vnni::kernel, width()>;
      k.reads_halves = true;
      k.most_more = 3;
      k.reads_codes = tokens <= most_strip_tokens; // more would meet each code again
    } else if (vector_floats(here) >= 8) {
      k.multiply = multiply_by<avx2::kernel, width()>;
      k.most_more = 1;
    }
#elif defined(__aarch64__)
    static const bool has_dot_products = neon::has_dot_products();
    if (here == isa::neon && has_dot_products) {
      k.multiply = multiply_by<neon::kernel, width()>;
      k.most_more = 1;
    }
#endif
    return k;
  });
}

} // namespace sinq::detail
