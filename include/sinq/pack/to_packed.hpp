#pragma once

#include "panels.hpp"

#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace sinq {

namespace detail {

/// Reads the codes of 16 rows: the inverse of write_panel_codes.
/// @param codes  [16 x code_stride(blocks)]
inline void read_panel_codes(int bits, std::size_t blocks, std::span<const byte> from, std::span<std::uint8_t> codes) {
  const std::size_t stride = code_stride(blocks);
  SINQ_ASSERT(codes.size() == panel_rows * stride && from.size() == blocks * block_bytes(bits));
  for_each_code_vector(bits, blocks, [&](auto width, int shift, std::size_t vector, std::size_t column) {
    for (std::size_t r = 0; r < panel_rows; ++r) {
      std::uint8_t* const to = codes.data() + r * stride + column;
      std::uint32_t four;
      std::memcpy(&four, from.data() + vector + 4 * r, sizeof four);
      for (std::size_t s = 0; s < 8 / width; ++s) {
        std::uint32_t digits = 0; // the first plane, which has the low bits, begins each code
        if (shift != 0) std::memcpy(&digits, to + 4 * s, sizeof digits);
        digits |= ((four >> (s * width)) & digit_mask<width>) << shift;
        std::memcpy(to + 4 * s, &digits, sizeof digits);
      }
    }
  });
}

/// Reads panels into rows: the scratch of one task.
class panel_reader {
public:
  explicit panel_reader(const panel_matrix& w)
      : w_{w}, shape_{w.format}, codes_(panel_rows * code_stride(shape_.blocks)) {}

  /// Reads the rows of a panel.
  /// @param to  of all rows: packed codes, and [N x G] or [N x super_groups] of elements as they are in the panels
  void operator()(std::size_t panel, const layout_parts& to) {
    const matrix_format& f = w_.format;
    const std::size_t panel_bytes = w_.codes.size() / shape_.panels, row_bytes = to.codes.size() / f.rows;
    read_panel_codes(f.bits, shape_.blocks, w_.codes.span().subspan(panel * panel_bytes, panel_bytes), codes_);
    for (std::size_t lane = 0; lane < shape_.row_count(panel); ++lane)
      with_layout(f.bits, [&](auto layout) {
        layout.pack_row(std::span{codes_}.subspan(lane * code_stride(shape_.blocks), f.cols),
                        to.codes.subspan((shape_.row_begin(panel) + lane) * row_bytes, row_bytes));
      });
    gather(w_.scale, f.groups(), panel, to.scale);
    gather(w_.zero, f.groups(), panel, to.zero);
    gather(w_.scale_base, f.super_groups(), panel, to.scale_base);
    gather(w_.zero_base, f.super_groups(), panel, to.zero_base);
  }

private:
  /// @param count  elements of a row
  void gather(const shared_bytes& from, std::size_t count, std::size_t panel, std::span<byte> to) const {
    const std::size_t size = to.size() / (w_.format.rows * count);
    for (std::size_t lane = 0; size != 0 && lane < shape_.row_count(panel); ++lane)
      for (std::size_t g = 0; g < count; ++g)
        std::memcpy(to.data() + ((shape_.row_begin(panel) + lane) * count + g) * size,
                    from.data() + ((panel * count + g) * panel_rows + lane) * size, size);
  }

  const panel_matrix& w_;
  panel_shape shape_;
  std::vector<std::uint8_t> codes_;
};

/// Scales or zero points of all rows: as they are, or codes of a byte each as one stream of their width. Bits that a
/// width lacks are dropped.
[[nodiscard]] inline shared_bytes packed_values(aligned_buffer<byte>&& values, int bits) {
  if (bits == 0 || values.empty()) return shared_bytes{std::move(values)};
  std::vector<std::uint8_t> codes(values.size());
  for (std::size_t n = 0; n < codes.size(); ++n)
    codes[n] = static_cast<std::uint8_t>(static_cast<int>(values[n]) & max_code(bits));
  aligned_buffer<byte> stream{stream_bytes(bits, codes.size()), aligned_buffer<byte>::uninitialized};
  with_layout(bits, [&](auto layout) { layout.pack_row(codes, stream.span()); });
  return shared_bytes{std::move(stream)};
}

} // namespace detail

/// Arranges panels as a packed matrix: the inverse of `to_panels`, to_packed(to_panels(p)) is p again, byte for byte.
/// What the padding of panels holds is dropped.
/// @errors  those of check_panels; errc::cancelled by run.progress
[[nodiscard]] inline result<packed_matrix> to_packed(const panel_matrix& w, const run_options& run = {}) {
  if (result<void> ok = check_panels(w); !ok) return ok.error();
  const matrix_format& f = w.format;
  const packed_sizes sizes = packed_bytes(f);
  const std::size_t groups = f.rows * f.groups();
  const auto make = [](std::size_t bytes) { return aligned_buffer<byte>{bytes, aligned_buffer<byte>::uninitialized}; };
  aligned_buffer<byte> codes = make(sizes.codes), scale = make(f.scale_bits == 0 ? sizes.scale : groups),
                       zero = make(f.has_zero && f.zero_bits != 0 ? groups : sizes.zero),
                       scale_base = make(sizes.scale_base), zero_base = make(sizes.zero_base);
  const detail::layout_parts all{codes.span(), scale.span(), zero.span(), scale_base.span(), zero_base.span()};
  const auto read = [&](std::size_t begin, std::size_t end) -> result<void> {
    detail::panel_reader reader{w};
    for (std::size_t n = begin; n < end; ++n) reader(n, all);
    return {};
  };
  if (result<void> done = parallel_for(run.on(), panel_shape{f}.panels, 4, read, run.progress); !done)
    return done.error();
  packed_matrix p;
  p.format = f;
  p.method = w.method;
  p.codes = shared_bytes{std::move(codes)};
  p.scale = detail::packed_values(std::move(scale), f.scale_bits);
  p.zero = detail::packed_values(std::move(zero), f.zero_bits);
  p.scale_base = shared_bytes{std::move(scale_base)};
  p.zero_base = shared_bytes{std::move(zero_base)};
  p.col_scale = w.col_scale;
  p.levels = w.levels;
  return p;
}

} // namespace sinq
