#pragma once

#include "../core/wide.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

namespace sinq::detail {

/// The grid 0, 1 .. top.
struct uniform_grid {
  float top;
  float bottom = 0; ///< always; a compiler that sees the constant compares and masks instead of taking the larger

  [[nodiscard]] float lowest() const { return 0; }
  [[nodiscard]] float highest() const { return top; }
  /// Value of the level nearest to a position, half to even.
  [[nodiscard]] float nearest(float position) const {
    float level;
    round(position, level);
    return level;
  }
  [[nodiscard]] std::uint8_t code(float position) const { return static_cast<std::uint8_t>(nearest(position)); }

  /// `nearest` of one or many.
  template <class Vector>
  SINQ_INLINE void round(const Vector& position, Vector& level) const {
    const Vector most = Vector{} + top, least = Vector{} + bottom;
    level = position < most ? position : most;
    level = ((level > least ? level : least) + 0x1p23f) - 0x1p23f;
  }
  /// `code` of many.
  template <class Vector, class Codes>
  SINQ_INLINE void find_codes(const Vector& position, Codes& code) const {
    Vector level;
    round(position, level);
    code = __builtin_convertvector(level, Codes);
  }
};

/// The reference's symmetric grid: codes around a middle, of positions around 0. Adding 1.5 * 2^23 leaves the nearest
/// integer, half to even, in the low mantissa bits, for negative values too.
struct centred_grid {
  std::int32_t middle;

  template <class Vector, class Codes>
  SINQ_INLINE void find_codes(const Vector& position, Codes& code) const {
    const Vector shifted = position + 0x1.8p23f;
    __builtin_memcpy(&code, &shifted, sizeof code);
    code = (code + middle) & 0xff;
  }
};

/// The largest float that still belongs to the lower of two neighbouring levels: their middle, rounded down.
[[nodiscard]] inline float border_between(float lower, float upper) {
  const double middle = (static_cast<double>(lower) + static_cast<double>(upper)) / 2;
  const float rounded = static_cast<float>(middle);
  return rounded > middle ? std::nextafter(rounded, lower) : rounded;
}

/// Any ascending levels, as many as a power of two; a position halfway between two belongs to the lower one.
struct codebook_grid {
  explicit codebook_grid(std::span<const float> levels) : count{levels.size()} {
    SINQ_ASSERT(count >= 2 && count <= 256 && std::has_single_bit(count));
    std::copy(levels.begin(), levels.end(), level.begin());
    for (std::size_t n = 0; n + 1 < count; ++n) border[n] = border_between(level[n], level[n + 1]);
  }

  [[nodiscard]] float lowest() const { return level[0]; }
  [[nodiscard]] float highest() const { return level[count - 1]; }
  [[nodiscard]] float nearest(float position) const { return level[code(position)]; }
  /// How many borders lie below a position.
  [[nodiscard]] std::uint8_t code(float position) const {
    std::size_t code = 0;
    for (std::size_t step = count / 2; step > 0; step /= 2) code += position > border[code + step - 1] ? step : 0;
    return static_cast<std::uint8_t>(code);
  }

  /// `nearest` of many.
  template <class Vector>
  SINQ_INLINE void round(const Vector& position, Vector& value) const {
    value = Vector{} + level[0];
    for (std::size_t n = 0; n + 1 < count; ++n) value = position > border[n] ? Vector{} + level[n + 1] : value;
  }
  /// `code` of many.
  template <class Vector, class Codes>
  SINQ_INLINE void find_codes(const Vector& position, Codes& code) const {
    code = Codes{};
    if (count > 64) { // steps of one position are fewer than comparisons of many
      for (std::size_t k = 0; k < sizeof code / sizeof code[0]; ++k) code[k] = this->code(position[k]);
      return;
    }
    switch (count) {
    case 4: return search<4, 2>(position, code);
    case 8: return search<8, 4>(position, code);
    case 16: return search<16, 8>(position, code);
    default:
      for (std::size_t n = 0; n + 1 < count; ++n) code -= position > border[n];
    }
  }

  std::size_t count;
  std::array<float, 256> level{};
  std::array<float, 256> border{};

private:
  /// The binary search of `code` for many: each step takes the border in the middle of what the steps before have left.
  template <std::size_t Count, std::size_t Step, class Vector, class Codes>
  SINQ_INLINE void search(const Vector& position, Codes& code) const {
    if constexpr (Step > 0) {
      Vector middle;
      find_border<Step, Count>(0, code, middle);
      code |= (position > middle) & static_cast<std::int32_t>(Step);
      search<Count, Step / 2>(position, code);
    }
  }
  template <std::size_t Step, std::size_t Left, class Vector, class Codes>
  SINQ_INLINE void find_border(std::size_t first, const Codes& code, Vector& middle) const {
    if constexpr (Left == 2 * Step) {
      middle = Vector{} + border[first + Step - 1];
    } else {
      Vector upper;
      find_border<Step, Left / 2>(first, code, middle);
      find_border<Step, Left / 2>(first + Left / 2, code, upper);
      middle = (code & static_cast<std::int32_t>(Left / 2)) != 0 ? upper : middle;
    }
  }
};

} // namespace sinq::detail
