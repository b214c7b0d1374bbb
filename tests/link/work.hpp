#pragma once

#include "all_headers.hpp"
#include "parts.hpp"

#include <cmath>

namespace parts {

/// Quantizes, packs and dequantizes; Unit makes it a function of its own in each translation unit.
template <class Unit>
outcome quantize_and_back() {
  constexpr std::size_t rows = 48;
  constexpr std::size_t cols = 200;
  std::vector<float> w(rows * cols);
  for (std::size_t k = 0; k < w.size(); ++k) w[k] = std::sin(static_cast<float>(k * k % 1009));
  const auto q = sinq::quantize(sinq::matrix_view<const float>{w.data(), rows, cols}, {.bits = 4});
  if (!q) return {};
  const auto p = sinq::pack(*q);
  if (!p) return {};
  return {{q->codes.begin(), q->codes.end()}, sinq::dequantize(*p)};
}

} // namespace parts
