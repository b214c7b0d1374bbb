#pragma once

#include "../core/aligned_buffer.hpp"
#include "../core/matrix_view.hpp"
#include "../core/weight_view.hpp"
#include "../core/wide.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

namespace sinq::detail {

/// Rows that lie side by side in a column_tile, one to a lane.
inline constexpr std::size_t tile_lanes = 16;

/// to[j * stride + lane] = from[lane][j] of 16 rows of floats, or of bfloat16s as their bits, while the rows `ahead`
/// elements further on are fetched.
template <class Element, bool Largest>
struct to_columns_loop {
  /// @param largest  bits of the largest magnitude so far, if asked for: those of a NaN or infinity are at least
  ///                 0x7f800000
  template <std::size_t W>
  SINQ_INLINE static void run(const std::array<const Element*, tile_lanes>& from, std::size_t ahead, std::size_t cols,
                              float* to, std::size_t stride, std::int32_t& largest) {
    constexpr std::size_t line = buffer_alignment_bytes / sizeof(Element);
    for (std::size_t lane = 0; ahead != 0 && lane < tile_lanes; ++lane)
      for (std::size_t j = 0; j < cols; j += line) __builtin_prefetch(from[lane] + ahead + j, 0, 2);
    vec<std::int32_t, W> most{};
    for (std::size_t lane = 0; lane < tile_lanes; lane += W) {
      vec<std::int32_t, W> rows[W], column{};
      std::size_t j = 0;
      for (; j + W <= cols; j += W) {
        for (std::size_t r = 0; r < W; ++r) load_bits<W>(from[lane + r] + j, rows[r]);
        transpose(rows);
        for (std::size_t r = 0; r < W; ++r) keep(rows[r], most, to + (j + r) * stride + lane);
      }
      for (; j < cols; ++j) {
        for (std::size_t r = 0; r < W; ++r) {
          vec<std::int32_t, 1> one;
          load_bits<1>(from[lane + r] + j, one);
          column[r] = one[0];
        }
        keep(column, most, to + j * stride + lane);
      }
    }
    if constexpr (Largest) {
      most_of_lanes<W>(most);
      largest = std::max(largest, most[0]);
    }
  }

private:
  template <std::size_t W>
  SINQ_INLINE static void load_bits(const Element* from, vec<std::int32_t, W>& to) {
    vec<Element, W> some;
    load(from, some);
    if constexpr (sizeof(Element) == 2)
      to = __builtin_convertvector(some, vec<std::int32_t, W>) << 16;
    else
      __builtin_memcpy(&to, &some, sizeof to);
  }
  template <class Bits>
  SINQ_INLINE static void keep(const Bits& bits, [[maybe_unused]] Bits& most, float* to) {
    if constexpr (Largest) {
      const Bits magnitude = bits & 0x7fffffff;
      most = magnitude > most ? magnitude : most;
    }
    __builtin_memcpy(to, &bits, sizeof bits);
  }
};

/// A tile of floats that lies column by column, 512 rows at a time: vectors are parts of columns, one row to a lane.
/// Rows are filled up with zeros to a multiple of 16, and a few spare floats keep columns apart in caches.
///
///   chunk 0   column 0: rows 0 .. 511, spare | column 1: rows 0 .. 511, spare | ..
///   chunk 1   column 0: rows 512 .. 1023, spare | ..
class column_tile {
public:
  static constexpr std::size_t most_height = 512;
  /// Rows, filled up.
  [[nodiscard]] static constexpr std::size_t whole(std::size_t rows) {
    return (rows + tile_lanes - 1) / tile_lanes * tile_lanes;
  }

  /// Makes room for N x K floats of any values.
  void resize(std::size_t rows, std::size_t cols) {
    rows_ = rows;
    cols_ = cols;
    largest_ = 0;
    height_ = std::min(most_height, whole(rows));
    const std::size_t size = chunks() * cols * stride() + line;
    if (size > capacity_) {
      memory_ = std::make_unique_for_overwrite<float[]>(size);
      capacity_ = size;
    }
    const std::size_t over = reinterpret_cast<std::uintptr_t>(memory_.get()) % buffer_alignment_bytes;
    values_ = memory_.get() + (buffer_alignment_bytes - over) / sizeof(float);
  }

  [[nodiscard]] std::size_t rows() const { return rows_; }
  [[nodiscard]] std::size_t cols() const { return cols_; }
  [[nodiscard]] std::size_t height() const { return height_; } ///< rows from one chunk to the next
  [[nodiscard]] std::size_t chunks() const { return (rows_ + height_ - 1) / height_; }
  /// Rows of a chunk, a multiple of 16.
  [[nodiscard]] std::size_t chunk_rows(std::size_t chunk) const {
    return std::min(height_, whole(rows_) - chunk * height_);
  }
  /// Floats from one column of a chunk to the next.
  [[nodiscard]] std::size_t stride() const { return height_ + line; }
  [[nodiscard]] float* column(std::size_t chunk, std::size_t j) { return values_ + (chunk * cols_ + j) * stride(); }
  [[nodiscard]] const float* column(std::size_t chunk, std::size_t j) const {
    return values_ + (chunk * cols_ + j) * stride();
  }
  [[nodiscard]] float operator()(std::size_t i, std::size_t j) const { return column(i / height_, j)[i % height_]; }

  /// The largest magnitude of all floats; infinity if one of them is not finite.
  [[nodiscard]] float largest() const {
    return std::bit_cast<float>(
        std::min(largest_, std::bit_cast<std::int32_t>(std::numeric_limits<float>::infinity())));
  }

  /// Takes all of a matrix.
  void assign(matrix_view<const float> w) {
    resize(w.rows(), w.cols());
    for (std::size_t i = 0; i < w.rows(); i += tile_lanes)
      put_rows<true>(i, w.data() + i * w.stride(), w.stride(), 2 * tile_lanes);
  }
  /// Takes rows [i0, i0 + N) and columns [j0, j0 + K) of a weight.
  void assign(const weight_view& w, std::size_t i0, std::size_t j0, std::size_t rows, std::size_t cols) {
    resize(rows, cols);
    put<true>(w, i0, j0, 0, rows, 2 * tile_lanes);
  }
  /// Takes `count` rows of the block that begins with row i0 and column j0 of a weight, from row `begin` on, a multiple
  /// of 16, while those that come so many rows later are fetched. With the first of them, `largest` starts again, which
  /// only takes notice of them if Largest.
  template <bool Largest>
  void put(const weight_view& w, std::size_t i0, std::size_t j0, std::size_t begin, std::size_t count,
           std::size_t ahead_rows) {
    if (begin == 0) largest_ = 0;
    const std::size_t end = begin + count;
    const auto floats = w.floats();
    const auto bits = w.bfloat16_bits();
    std::vector<float> some(floats || bits ? 0 : tile_lanes * cols_);
    for (std::size_t i = begin; i < end; i += tile_lanes) {
      if (floats) {
        put_rows<Largest>(i, floats->data() + (i0 + i) * floats->stride() + j0, floats->stride(), ahead_rows);
        continue;
      }
      if (bits) {
        put_rows<Largest>(i, bits->data() + (i0 + i) * bits->stride() + j0, bits->stride(), ahead_rows);
        continue;
      }
      for (std::size_t lane = 0; lane < std::min(tile_lanes, rows_ - i); ++lane)
        w.load(i0 + i + lane, j0, std::span{some}.subspan(lane * cols_, cols_));
      put_rows<Largest>(i, some.data(), cols_, 0);
    }
  }
  /// Takes all of another tile, times a power of two, twice.
  void assign_scaled(const column_tile& from, float power) {
    resize(from.rows(), from.cols());
    for (std::size_t n = 0; n < chunks(); ++n)
      for (std::size_t j = 0; j < cols_; ++j)
        std::transform(from.column(n, j), from.column(n, j) + chunk_rows(n), column(n, j),
                       [power](float value) { return value * power * power; });
  }

private:
  /// Puts 16 rows, or those that are left, in their places from row i on, a multiple of 16, and fetches those that come
  /// so many rows later.
  template <bool Largest, class Element>
  void put_rows(std::size_t i, const Element* some, std::size_t row_stride, std::size_t ahead_rows) {
    const std::size_t count = std::min(tile_lanes, rows_ - i);
    std::array<const Element*, tile_lanes> from;
    std::vector<Element> zeros(count < tile_lanes ? cols_ : 0);
    for (std::size_t lane = 0; lane < tile_lanes; ++lane)
      from[lane] = lane < count ? some + lane * row_stride : zeros.data();
    const std::size_t ahead = rows_ - i > ahead_rows + tile_lanes ? ahead_rows * row_stride : 0;
    run_wide<to_columns_loop<Element, Largest>>(from, ahead, cols_, column(i / height_, 0) + i % height_, stride(),
                                                largest_);
  }

  static constexpr std::size_t line = buffer_alignment_bytes / sizeof(float);

  std::size_t rows_ = 0, cols_ = 0, height_ = 1;
  std::unique_ptr<float[]> memory_; ///< aligned by hand: what one task frees, the next one gets from malloc
  std::size_t capacity_ = 0;
  float* values_ = nullptr;
  std::int32_t largest_ = 0; ///< bits of a magnitude
};

} // namespace sinq::detail
