#pragma once

#include "../core/aligned_buffer.hpp"
#include "../pack/panel_auxiliaries.hpp"
#include "dispatch.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

namespace sinq::detail {

/// The levels of a codebook in bytes; see scale_to_bytes.
struct byte_codebook {
  explicit byte_codebook(std::span<const float> levels) {
    for (const float level : levels) most = std::max(most, std::fabs(level));
    if (most == 0) most = 1;
    for (std::size_t n = 0; n < levels.size(); ++n)
      values[n] = static_cast<std::uint8_t>(128 + std::lround(127 * levels[n] / most));
  }

  float most = 0;
  std::array<std::uint8_t, 16> values{};
};

/// Gives a kernel the scales and zero points of some panels in a form that it takes, as they are stored if it can: the
/// scratch of one task.
class lanes_reader {
public:
  /// @param book  of the levels, if the kernel multiplies them as bytes; borrowed
  lanes_reader(const panel_matrix& w, const kernel& k, const byte_codebook* book)
      : w_{w}, book_{book}, lanes_{w.format.groups() * panel_rows},
        super_lanes_{w.format.super_groups() * panel_rows}, scale_{form_of(k, w.format.scale_bits), {}, {}},
        zero_{w.format.has_zero ? form_of(k, w.format.zero_bits) : form::floats, {}, {}} {
    const std::size_t scales = k.panels * floats_of(scale_.stored), zeros = k.panels * floats_of(zero_.stored);
    const std::size_t offsets = zero_.stored == form::codes ? zeros : 0;
    if (scales + zeros + offsets == 0) return;
    memory_ = aligned_buffer<float>{scales + zeros + offsets, aligned_buffer<float>::uninitialized};
    scale_.floats = memory_.span().first(scales);
    zero_.floats = memory_.span().subspan(scales, zeros);
    zero_.offset = memory_.span().last(offsets);
  }

  /// Those of `count` panels, valid until the next call.
  void operator()(std::size_t panel, std::size_t count, panel_product& p) {
    const part scale = first(scale_, count), zero = first(zero_, count);
    for (std::size_t n = 0; n < count; ++n) load_auxiliaries(w_, panel + n, values(scale, n), values(zero, n));
    p.scale = given(scale, w_.scale, w_.scale_base, panel);
    p.zero = given(zero, w_.zero, w_.zero_base, panel);
    for (std::size_t n = 0; n < zero.offset.size(); ++n)
      zero.offset[n] = w_.format.symmetric_zero() - zero.floats[n] * zero_origin(w_.format.zero_bits);
    if (book_ != nullptr) adapt(scale, zero);
  }

private:
  enum class form { floats, halves, codes };
  struct part {
    form stored;
    std::span<float> floats; ///< values, or the bases of codes
    std::span<float> offset; ///< of codes, if it is not 0
  };

  [[nodiscard]] form form_of(const kernel& k, int bits) const {
    if (bits != 0) return k.reads_codes ? form::codes : form::floats;
    return k.reads_halves && storage(w_.format.aux) == dtype::f16 ? form::halves : form::floats;
  }

  /// Floats that a panel needs here.
  [[nodiscard]] std::size_t floats_of(form f) const {
    return f == form::floats ? lanes_ : f == form::codes ? super_lanes_ : 0;
  }

  /// The memory for `count` panels.
  [[nodiscard]] part first(const part& of, std::size_t count) const {
    const std::size_t floats = count * floats_of(of.stored);
    return {of.stored, of.floats.first(floats), of.offset.first(of.offset.empty() ? 0 : floats)};
  }

  /// Where the values of panel n go, if they become floats.
  [[nodiscard]] std::span<float> values(const part& of, std::size_t n) const {
    if (of.stored != form::floats) return {};
    return of.floats.subspan(n * lanes_, lanes_);
  }

  [[nodiscard]] panel_lanes given(const part& of, const shared_bytes& stored, const shared_bytes& base,
                                  std::size_t panel) const {
    const dtype type = storage(w_.format.aux);
    switch (of.stored) {
    case form::floats: return {.floats = of.floats.data()};
    case form::halves: return {.halves = stored.data() + panel * lanes_ * size_bytes(type)};
    case form::codes: break;
    }
    load_floats(base.data() + panel * super_lanes_ * size_bytes(type), type, of.floats);
    return {.codes = stored.data() + panel * lanes_,
            .base = of.floats.data(),
            .offset = of.offset.empty() ? nullptr : of.offset.data()};
  }

  /// Makes floats, and what codes stand for, those of a codebook in bytes.
  void adapt(const part& scale, const part& zero) const {
    for (float& value : scale.floats) scale_to_bytes(book_->most, value);
    if (zero.stored == form::codes)
      for (float& base : zero.floats) base *= 127 / book_->most;
    for (float& value : zero.stored == form::codes ? zero.offset : zero.floats) zero_to_bytes(book_->most, value);
  }

  const panel_matrix& w_;
  const byte_codebook* book_;
  std::size_t lanes_, super_lanes_;
  part scale_, zero_;
  aligned_buffer<float> memory_;
};

} // namespace sinq::detail
