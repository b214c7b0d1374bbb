#pragma once

#include "format.hpp"

#include <array>
#include <cmath>
#include <span>

namespace sinq {

/// NormalFloat4: quantiles of the normal distribution, scaled to [-1, 1], with 0 among them.
/// Source: Dettmers et al., QLoRA, arXiv 2305.14314, appendix E; huawei-csl/SINQ sinq/dual_shift.py (NF4_CODEBOOK).
inline constexpr std::array<float, 16> nf4_levels{
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

/// NormalFloat3, built in the same way. Source: huawei-csl/SINQ sinq/dual_shift.py (NF3_CODEBOOK).
inline constexpr std::array<float, 8> nf3_levels{
    -1.0f,
    -0.5350227355957031f,
    -0.2469314038753510f,
    0.0f,
    0.1833375245332718f,
    0.3819939494132996f,
    0.6229856610298157f,
    1.0f,
};

namespace detail {

inline constexpr std::array<float, 256> uniform_levels = [] {
  std::array<float, 256> levels{};
  for (std::size_t code = 0; code < levels.size(); ++code) levels[code] = static_cast<float>(code);
  return levels;
}();

/// The largest float that still belongs to the lower of two neighbouring levels: their middle, rounded down.
[[nodiscard]] inline float border_between(float lower, float upper) {
  const double middle = (static_cast<double>(lower) + static_cast<double>(upper)) / 2;
  const float rounded = static_cast<float>(middle);
  return rounded > middle ? std::nextafter(rounded, lower) : rounded;
}

} // namespace detail

/// The values that codes stand for, 2^bits of them in the order of the codes.
/// @param custom  the stored levels of grid::custom; not looked at otherwise
[[nodiscard]] inline std::span<const float> levels(const matrix_format& format, std::span<const float> custom = {}) {
  switch (format.grid) {
  case grid::nf4: return nf4_levels;
  case grid::nf3: return nf3_levels;
  case grid::custom: return custom;
  case grid::uniform: break;
  }
  return std::span{detail::uniform_levels}.first(static_cast<std::size_t>(max_code(format.bits)) + 1);
}

} // namespace sinq
