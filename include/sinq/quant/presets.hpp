#pragma once

#include "options.hpp"

#include <array>
#include <optional>
#include <string_view>

namespace sinq {

/// A choice of widths that together come to a size, in bits per weight, all counted, for matrices of 500 rows and more.
struct preset {
  std::string_view name; ///< the size
  int bits;
  std::size_t group_size;
  int scale_bits;
  int zero_bits;

  /// The options with the preset's widths in them.
  [[nodiscard]] quantize_options operator()(quantize_options options) const {
    options.bits = bits;
    options.group_size = group_size;
    options.scale_bits = scale_bits;
    options.zero_bits = zero_bits;
    return options;
  }
};

inline constexpr std::array preset_table{
    preset{.name = "4.5", .bits = 4, .group_size = 32, .scale_bits = 6, .zero_bits = 6},
    preset{.name = "4.25", .bits = 4, .group_size = 64, .scale_bits = 6, .zero_bits = 6},
    preset{.name = "3.5", .bits = 3, .group_size = 32, .scale_bits = 6, .zero_bits = 6},
};

/// The preset of that name, if there is one.
[[nodiscard]] constexpr std::optional<preset> parse_preset(std::string_view name) {
  for (const preset& entry : preset_table)
    if (entry.name == name) return entry;
  return std::nullopt;
}

} // namespace sinq
