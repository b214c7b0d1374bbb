#pragma once

#include "../panel.hpp"

/// What the kernels of bytes of all instruction sets share: the order in which strips of tokens meet the codes.
namespace sinq::detail {

/// Steps that all tokens take before the next ones: their codes stay in the first cache.
inline constexpr std::size_t steps_at_once = 16;

/// Multiplies by Kernel::run<T, P>(p, token, begin, end), which adds steps [begin, end) to y of T tokens of P panels:
/// both, if Kernel::pairs, otherwise one after the other.
template <class Kernel>
void multiply_strips(const panel_product& p) {
  std::fill_n(p.y, panels_at_once * p.tokens * panel_rows, 0.0f);
  const std::size_t at_once = p.tokens <= most_strip_tokens ? p.steps : steps_at_once;
  for (std::size_t begin = 0; begin < p.steps; begin += at_once) {
    const std::size_t end = std::min(p.steps, begin + at_once);
    for_each_strip(p.tokens, [&](auto size, std::size_t token) {
      if constexpr (Kernel::pairs)
        Kernel::template run<size(), 2>(p, token, begin, end);
      else
        for (std::size_t n = 0; n < panels_at_once; ++n) Kernel::template run<size(), 1>(p.panel(n), token, begin, end);
    });
  }
}

/// The instance of a kernel for a product: kernel<Bits, whether levels are looked up, columns of a step>.
template <template <int, bool, int> class Kernel, int Bits>
void multiply_by(const panel_product& p) {
  if constexpr (Bits <= 4)
    if (p.byte_levels != nullptr)
      return p.step == 64 ? multiply_strips<Kernel<Bits, true, 64>>(p) : multiply_strips<Kernel<Bits, true, 32>>(p);
  return p.step == 64 ? multiply_strips<Kernel<Bits, false, 64>>(p) : multiply_strips<Kernel<Bits, false, 32>>(p);
}

} // namespace sinq::detail
