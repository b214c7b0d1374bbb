#pragma once

#include "../core/finite.hpp"
#include "../core/levels.hpp"
#include "../core/wide.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
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
    clamp(position, level);
    level = (level + 0x1p23f) - 0x1p23f;
  }
  /// `code` of many.
  template <class Vector, class Codes>
  SINQ_INLINE void find_codes(const Vector& position, Codes& code) const {
    Vector level;
    clamp(position, level);
    const Vector shifted = level + 0x1p23f; // its low bits are the nearest integer
    __builtin_memcpy(&code, &shifted, sizeof code);
    code &= 0xff;
  }

private:
  template <class Vector>
  SINQ_INLINE void clamp(const Vector& position, Vector& level) const {
    const Vector most = Vector{} + top, least = Vector{} + bottom;
    level = position < most ? position : most;
    level = level > least ? level : least;
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
    for (std::size_t n = 0; n + 1 < count; ++n) code -= position > border[n];
  }

  std::size_t count;
  std::array<float, 256> level{};
  std::array<float, 256> border{};
};

/// A codebook_grid of few levels, whose borders fit in registers.
///
/// Where a vector has 16 lanes and look_up is there, positions are looked up in 32 cells of equal width from the lowest
/// level to the highest, if no two borders share one: what is left is one comparison.
template <std::size_t Count>
struct few_levels_grid {
  explicit few_levels_grid(const codebook_grid& grid) : low{grid.lowest()}, high{grid.highest()} {
    SINQ_ASSERT(grid.count == Count);
    std::copy_n(grid.border.begin(), border.size(), border.begin());
    per_cell = static_cast<float>(cells - 2) / (high - low);
    to_cells -= std::nearbyint(low * per_cell);
    cell_border.fill(std::numeric_limits<float>::infinity());
    for (const float b : border) {
      vec<std::int32_t, 1> place;
      find_cells(vec<float, 1>{b}, place);
      const std::size_t cell = static_cast<std::size_t>(place[0]) % cells;
      has_cells &= !is_finite(cell_border[cell]);
      cell_border[cell] = b;
      for (std::size_t n = cell + 1; n < cells; ++n) ++cell_code[n];
    }
  }

  /// codebook_grid::code of one or many.
  template <class Vector, class Codes>
  SINQ_INLINE void find_codes(const Vector& position, Codes& code) const {
#if SINQ_LOOK_UP
    if constexpr (sizeof position == sizeof(vec<float, 16>))
      if (has_cells) return look_up_codes(position, code);
#endif
    Vector borders[Count - 1];
    for (std::size_t n = 0; n + 1 < Count; ++n) borders[n] = Vector{} + border[n];
    code = Codes{};
    search<Count>(position, borders, code);
  }

  static constexpr std::size_t cells = 32;
  std::array<float, Count - 1> border;
  float low, high, per_cell, to_cells = 0x1.8p23f; ///< the low bits of position * per_cell + to_cells are a cell
  std::array<float, cells> cell_border{};          ///< the one in the cell, or infinity
  std::array<std::int32_t, cells> cell_code{};     ///< borders in lower cells
  bool has_cells = true;

private:
  /// A cell in the low bits: the product is rounded once, so that positions and borders fall into them alike.
  template <class Vector, class Places>
  SINQ_INLINE void find_cells(const Vector& position, Places& place) const {
    Vector shifted = Vector{} + to_cells;
    add_product(position, Vector{} + per_cell, shifted);
    __builtin_memcpy(&place, &shifted, sizeof place);
  }
#if SINQ_LOOK_UP
  template <class Vector, class Codes>
  SINQ_INLINE void look_up_codes(const Vector& position, Codes& code) const {
    Vector inside = position < high ? position : Vector{} + high, borders[2], nearest;
    inside = inside > low ? inside : Vector{} + low;
    Codes codes[2], place;
    for (std::size_t n = 0; n < 2; ++n) {
      load(cell_border.data() + n * 16, borders[n]);
      load(cell_code.data() + n * 16, codes[n]);
    }
    find_cells(inside, place);
    code = place;
    look_up(borders, place);
    look_up(codes, code);
    __builtin_memcpy(&nearest, &place, sizeof nearest);
    code -= position > nearest;
  }
#endif
  /// Each step keeps the borders of one half.
  template <std::size_t Left, class Vector, class Codes>
  SINQ_INLINE static void search(const Vector& position, const Vector* borders, Codes& code) {
    constexpr std::size_t half = Left / 2;
    const Codes upper = position > borders[half - 1];
    code |= upper & static_cast<std::int32_t>(half);
    if constexpr (half > 1) {
      Vector kept[half - 1];
      for (std::size_t n = 0; n + 1 < half; ++n) kept[n] = upper ? borders[half + n] : borders[n];
      search<half>(position, kept, code);
    }
  }
};

} // namespace sinq::detail
