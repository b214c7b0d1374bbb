#pragma once

#include "../quant/quantize.hpp"
#include "pack.hpp"

#include <array>
#include <atomic>
#include <utility>
#include <vector>

namespace sinq {

namespace detail {

/// Packs the parts of a quantized weight while they are made.
class packed_sink final : public block_sink {
public:
  explicit packed_sink(const matrix_format& format)
      : format_{format}, code_row_{stream_bytes(format.bits, format.cols)}, parts_{packed_bytes(format)} {}

  /// Whether codes of groups that do not begin a row begin a byte.
  [[nodiscard]] static bool can_take(const matrix_format& f) {
    return f.group_size >= f.cols || f.group_size % 8 * static_cast<std::size_t>(f.bits) % 8 == 0;
  }

  void put_codes(std::size_t row, std::size_t col, matrix_view<const std::uint8_t> codes) override {
    const std::size_t begin = col * static_cast<std::size_t>(format_.bits) / 8;
    const std::size_t end = (col + codes.cols()) * static_cast<std::size_t>(format_.bits) / 8;
    const std::size_t bytes = (col + codes.cols() == format_.cols ? code_row_ : end) - begin;
    with_layout(format_.bits, [&](auto layout) {
      run_wide<pack_loop<layout.bits>>(codes, parts_.codes.data() + row * code_row_ + begin, bytes, code_row_);
    });
  }

  void put_groups(std::size_t row, std::size_t group, matrix_view<const float> scale,
                  matrix_view<const float> zero) override {
    constexpr std::size_t most = 512;
    const std::size_t cols = std::min(scale.cols(), most), rows = most / cols;
    bool fit = true;
    for (std::size_t i = 0; i < scale.rows(); i += rows)
      for (std::size_t g = 0; g < scale.cols(); g += cols) {
        const std::size_t height = std::min(rows, scale.rows() - i), width = std::min(cols, scale.cols() - g);
        const std::size_t first = (row + i) * format_.groups() + group + g;
        fit &= put<most, false>(scale.block(i, g, height, width), parts_.scale.data(), first);
        if (format_.has_zero) fit &= put<most, true>(zero.block(i, g, height, width), parts_.zero.data(), first);
      }
    if (!fit) all_fit_.store(false, std::memory_order_relaxed);
  }

  /// Whether all scales and zero points are as `pack` would store them: none moves a power of two into t, makes codes
  /// coarser or is an error.
  [[nodiscard]] bool all_fit() const { return all_fit_.load(std::memory_order_relaxed); }
  [[nodiscard]] packed_parts take() { return std::move(parts_); }

private:
  /// Stores values from element `first` on, row by row; whether they are in range or, of zero points, near what is
  /// stored. @pre they lie side by side, `Most` of them or fewer
  template <std::size_t Most, bool Zero>
  [[nodiscard]] bool put(matrix_view<const float> values, byte* to, std::size_t first) const {
    const std::size_t count = values.rows() * values.cols();
    SINQ_ASSERT(count <= Most && (values.stride() == values.cols() || values.rows() == 1));
    const dtype type = storage(format_.aux);
    const std::size_t size = size_bytes(type), row_bytes = values.cols() * size;
    std::array<byte, Most * sizeof(float)> stored;
    store_floats({values.data(), count}, type, stored.data());
    for (std::size_t i = 0; i < values.rows(); ++i)
      std::memcpy(to + (first + i * format_.groups()) * size, stored.data() + i * row_bytes, row_bytes);
    if constexpr (!Zero) return fits({values.data(), count}, type);
    std::array<float, Most> back;
    load_floats(stored.data(), type, std::span{back}.first(count));
    bool fit = true;
    for (std::size_t n = 0; n < count; ++n) fit &= std::fabs(back[n] - values.data()[n]) <= zero_tolerance;
    return fit;
  }

  matrix_format format_;
  std::size_t code_row_;
  packed_parts parts_;
  std::atomic<bool> all_fit_{true};
};

/// pack(quantize(w, options)), one after the other.
[[nodiscard]] inline result<packed_matrix> quantize_then_pack(const weight_view& w, const quantize_options& options) {
  const result<quantized_matrix> q = quantize(w, options);
  if (!q) return q.error();
  return pack(*q, {.threads = options.run.threads, .progress = {}});
}

} // namespace detail

/// pack(quantize(w, options)), byte for byte, in fewer passes over memory: codes are packed while the block that they
/// belong to is in the cache, where nothing changes them later. That is so for methods without refinement, error
/// feedback and quantized auxiliaries; others go the two steps. A matrix with a scale outside the range of its storage
/// type, which `pack` has to move, goes them too, after its first quantization: twice the time, and not often.
/// @param w  as for quantize
/// @errors   those of quantize and pack; errc::cancelled by options.run.progress, which is told about quantization
[[nodiscard]] inline result<packed_matrix> quantize_packed(const weight_view& w, const quantize_options& options = {}) {
  if (w.empty() || options.group_size == 0 || !check_options(options) ||
      !detail::codes_are_final(options, w.rows(), w.cols()))
    return detail::quantize_then_pack(w, options);
  const matrix_format planned = planned_format(options, w.rows(), w.cols());
  if (!check_format(planned) || !detail::packed_sink::can_take(planned)) return detail::quantize_then_pack(w, options);
  detail::packed_sink sink{planned};
  const result<quantized_matrix> q = detail::run_method<>(w, options, &sink);
  if (!q) return q.error();
  if (!q->codes.empty()) return pack(*q, {.threads = options.run.threads, .progress = {}});
  const bool finite = all_finite(q->col_scale);
  if (!sink.all_fit() || !finite) return detail::quantize_then_pack(w, options);
  matrix_format format = q->format;
  const std::vector<int> no_shifts(format.row_tiles() * format.groups());
  const std::vector<float> t = detail::shifted_col_scale(*q, no_shifts, format);
  return detail::assemble(format, *q, sink.take(), t);
}

} // namespace sinq
