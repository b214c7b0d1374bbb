#pragma once

#include "../core/convert.hpp"
#include "../core/parallel.hpp"
#include "../pack/aux_codes.hpp"
#include "../pack/layout.hpp"
#include "lane_words.hpp"
#include "layout.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <span>

namespace sinq::cuda {

namespace detail {

/// The form in which codes of that format are kept; table4 for codebooks.
[[nodiscard]] inline result<code_form> form_of(const matrix_format& f) {
  if (f.grid != grid::uniform) {
    if (f.bits <= 4) return code_form::table4;
    return make_error(errc::unsupported, "cuda: a codebook of ", f.bits, " bits, expected at most 4");
  }
  switch (f.bits) {
  case 2: return code_form::u2;
  case 3: return code_form::u3;
  case 4: return code_form::u4;
  default: return code_form::u8;
  }
}

/// Columns of the groups on the device: as in the format, or a part of them that is equal for all.
[[nodiscard]] inline result<unsigned> device_group_size(const matrix_format& f) {
  const std::size_t size = std::gcd(f.group_size, std::size_t{unit_cols});
  if (size >= least_group) return static_cast<unsigned>(size);
  if (f.group_size >= f.cols) return unit_cols;
  return make_error(errc::unsupported, "cuda: groups of ", f.group_size, " columns, expected a multiple of 32");
}

/// Powers of two that bring the largest scale of each column of groups into [2^14, 2^15), so that f16 holds all down to
/// 2^-28 of it; 0 where scales are stored in f16 already.
[[nodiscard]] inline std::vector<int> scale_powers(const packed_matrix& p) {
  const matrix_format& f = p.format;
  std::vector<int> powers(f.groups());
  if (f.aux == aux_dtype::f16 && f.scale_bits == 0) return powers;
  std::vector<float> most(f.groups()), scale(f.groups()), zero(f.groups());
  for (std::size_t i = 0; i < f.rows; ++i) {
    load_auxiliaries(p, i, scale, zero);
    for (std::size_t g = 0; g < f.groups(); ++g) most[g] = std::max(most[g], std::fabs(scale[g]));
  }
  for (std::size_t g = 0; g < f.groups(); ++g)
    if (most[g] > 0) powers[g] = std::ilogb(most[g]) - 14;
  return powers;
}

/// Calls f with the width and the form of codes, as constants. @pre form == form_of(the format of those bits)
template <class F>
void with_form(int bits, code_form form, F&& f) {
  with_layout(bits, [&](auto layout) {
    constexpr int width = decltype(layout)::bits;
    using code_form::u2, code_form::u3, code_form::u4, code_form::u8, code_form::table4;
    constexpr code_form uniform = width == 2 ? u2 : width == 3 ? u3 : width == 4 ? u4 : u8;
    if constexpr (width <= 4)
      if (form == table4) return f(layout, std::integral_constant<code_form, table4>{});
    f(layout, std::integral_constant<code_form, uniform>{});
  });
}

/// Writes codes, scales and zero points of 16 rows into their records.
class tile_writer {
public:
  /// @param powers  of scale_powers
  tile_writer(const packed_matrix& p, std::span<const int> powers, device_image& image)
      : p_{p}, powers_{powers}, image_{image}, scale_(p.format.groups()), zero_(scale_.size()),
        scale_bits_(scale_.size()), zero_bits_(scale_.size()) {}

  [[nodiscard]] result<void> operator()(std::size_t tile) {
    const std::size_t begin = tile * tile_rows, end = std::min<std::size_t>(p_.format.rows, begin + tile_rows);
    std::array<std::span<const byte>, tile_rows> rows;
    for (std::size_t i = begin; i < end; ++i) rows[i - begin] = p_.code_row(i);
    const device_format& d = image_.format;
    std::uint8_t* const records = image_.weights.data() + tile * d.units() * d.record_bytes();
    with_form(p_.format.bits, d.form, [&](auto layout, auto form) {
      using loop = put_rows_loop<decltype(layout)::bits, decltype(form)::value>;
      sinq::detail::run_wide<loop>(rows, p_.format.cols, records, std::size_t{d.record_bytes()});
    });
    for (std::size_t i = begin; i < end; ++i) {
      if (result<void> ok = read_auxiliaries(i); !ok) return ok;
      write_auxiliaries(static_cast<unsigned>(i - begin), records);
    }
    return {};
  }

private:
  /// Scales, by their powers of two, and zero points of row i in f16.
  [[nodiscard]] result<void> read_auxiliaries(std::size_t i) {
    load_auxiliaries(p_, i, scale_, zero_);
    held_scale_ = scale_;
    for (std::size_t g = 0; g < powers_.size(); ++g)
      if (powers_[g] != 0) held_scale_[g] = std::ldexp(scale_[g], -powers_[g]);
    held_zero_ = zero_;
    round_to_f16(held_scale_, scale_bits_);
    round_to_f16(held_zero_, zero_bits_);
    for (std::size_t g = 0; g < scale_.size(); ++g)
      if (!is_finite(held_scale_[g]) || !(std::fabs(held_zero_[g] - zero_[g]) <= 0x1p-4f))
        return make_error(errc::not_representable, "cuda: scale ", scale_[g], " or zero point ", zero_[g], " of row ",
                          i, ", group ", g, " does not fit F16");
    return {};
  }
  static void round_to_f16(std::span<float> values, std::span<std::uint16_t> bits) {
    store_floats(values, dtype::f16, reinterpret_cast<byte*>(bits.data()));
    load_floats(reinterpret_cast<const byte*>(bits.data()), dtype::f16, values);
  }

  void write_auxiliaries(unsigned in_tile, std::uint8_t* records) const {
    const device_format& d = image_.format;
    for (unsigned unit = 0; unit < d.units(); ++unit)
      for (unsigned k = 0; k < d.unit_groups(); ++k) {
        const unsigned col = unit * unit_cols + k * d.group_size;
        if (col >= d.cols) return;
        const std::size_t from = col / p_.format.group_size;
        const std::uint16_t pair[2] = {scale_bits_[from], zero_bits_[from]};
        std::memcpy(records + std::size_t{unit} * d.record_bytes() + aux_place(d, in_tile, k), pair, sizeof pair);
      }
  }

  const packed_matrix& p_;
  std::span<const int> powers_;
  device_image& image_;
  std::vector<float> scale_, zero_, held_scale_, held_zero_;
  std::vector<std::uint16_t> scale_bits_, zero_bits_;
};

/// Splits the t of each group into a power of two, which takes that of the scales too, and factors below 1.
inline void split_col_scale(const packed_matrix& p, std::span<const int> powers, device_image& image) {
  const device_format& d = image.format;
  image.t.assign(std::size_t{d.units()} * unit_cols, 0.0f);
  image.unit.assign(d.groups(), 1.0f);
  const std::span<float> t = std::span{image.t}.first(d.cols);
  if (p.format.has_col_scale)
    load_floats(p.col_scale.data(), p.format.col_scale_type, t);
  else
    std::fill(t.begin(), t.end(), 1.0f);
  for (unsigned g = 0; g < d.groups(); ++g) {
    const std::span<float> some = std::span{image.t}.subspan(std::size_t{g} * d.group_size, d.group_size);
    float most = 0;
    for (const float value : some) most = std::max(most, std::fabs(value));
    if (most == 0) continue;
    const int power = std::ilogb(most) + 1;
    for (float& value : some) value = std::ldexp(value, -power);
    const int of_scales = powers[std::size_t{g} * d.group_size / p.format.group_size];
    image.unit[g] = std::ldexp(1.0f, std::clamp(power + of_scales, -126, 127));
  }
}

[[nodiscard]] inline result<device_format> device_format_of(const matrix_format& f) {
  if (f.rotation != 0) return make_error(errc::unsupported, "cuda: inputs that are rotated in blocks of ", f.rotation);
  if (f.row_tiles() != 1)
    return make_error(errc::unsupported, "cuda: tiles of ", f.tile_rows, " rows, expected one t for all ", f.rows);
  constexpr std::size_t most = std::size_t{1} << 30;
  if (f.rows > most || f.cols > most)
    return make_error(errc::unsupported, "cuda: the matrix is ", f.rows, " x ", f.cols, ", more than 2^30 on a side");
  const result<code_form> form = form_of(f);
  if (!form) return form.error();
  const result<unsigned> group_size = device_group_size(f);
  if (!group_size) return group_size.error();
  return device_format{static_cast<unsigned>(f.rows), static_cast<unsigned>(f.cols), *form, *group_size};
}

} // namespace detail

/// Arranges a packed matrix as the device keeps it, whole words of codes at a time. Codes of 5 and 6 bits take 8,
/// codebooks of 2 and 3 bits take 4; scales and zero points in bf16, f32 or codes become f16, rounded by 2^-11 of a
/// scale (those above 2^-28 of the largest of their column of groups) and 1/16 of a step at most.
/// @errors  errc::unsupported (rotated inputs, tiles of rows, codebooks of more than 4 bits, groups that are no
/// multiple
///          of 32 columns), errc::not_representable (a scale or zero point that f16 cannot hold), those of check_packed
[[nodiscard]] inline result<device_image> to_device_layout(const packed_matrix& p, executor* threads = nullptr) {
  if (result<void> ok = check_packed(p); !ok) return ok.error();
  const result<device_format> format = detail::device_format_of(p.format);
  if (!format) return format.error();
  device_image image{.format = *format, .weights = {}, .t = {}, .unit = {}, .levels = {}};
  image.weights.assign(format->weight_bytes(), 0);
  const std::vector<int> powers = detail::scale_powers(p);
  const auto some_tiles = [&](std::size_t begin, std::size_t end) -> result<void> {
    detail::tile_writer write{p, powers, image};
    for (std::size_t tile = begin; tile < end; ++tile)
      if (result<void> ok = write(tile); !ok) return ok;
    return {};
  };
  executor& on = threads != nullptr ? *threads : default_executor();
  if (result<void> ok = parallel_for(on, format->tiles(), 1, some_tiles); !ok) return ok.error();
  detail::split_col_scale(p, powers, image);
  if (format->form == code_form::table4) {
    const std::vector<float> custom = custom_levels(p.levels);
    const std::span<const float> known = levels(p.format, custom);
    image.levels.assign(known.begin(), known.end());
    image.levels.resize(16, 0.0f);
  }
  return image;
}

namespace detail {

/// Packs the codes of an image again, in the width of its form.
/// @param to  N rows of the canonical layout
inline void read_codes(const device_image& image, std::span<byte> to) {
  const device_format& d = image.format;
  const std::size_t row_bytes = to.size() / d.rows;
  for (std::size_t tile = 0; tile < d.tiles(); ++tile) {
    const std::size_t begin = tile * tile_rows, end = std::min<std::size_t>(d.rows, begin + tile_rows);
    std::array<std::span<byte>, tile_rows> rows;
    for (std::size_t i = begin; i < end; ++i) rows[i - begin] = to.subspan(i * row_bytes, row_bytes);
    const std::uint8_t* const records = image.weights.data() + tile * d.units() * d.record_bytes();
    with_form(static_cast<int>(bits_of(d.form)), d.form, [&](auto, auto form) {
      sinq::detail::run_wide<take_rows_loop<decltype(form)::value>>(records, std::size_t{d.record_bytes()},
                                                                    std::size_t{d.cols}, rows);
    });
  }
}

/// Reads scales and zero points of row i back from their records.
inline void read_auxiliaries(const device_image& image, std::size_t i, std::span<byte> scale, std::span<byte> zero) {
  const device_format& d = image.format;
  for (unsigned g = 0; g * d.group_size < d.cols; ++g) {
    const std::uint8_t* const from = image.weights.data() +
                                     (i / tile_rows * d.units() + g / d.unit_groups()) * d.record_bytes() +
                                     aux_place(d, static_cast<unsigned>(i % tile_rows), g % d.unit_groups());
    std::memcpy(scale.data() + 2 * g, from, 2);
    std::memcpy(zero.data() + 2 * g, from + 2, 2);
  }
}

} // namespace detail

/// The packed matrix that an image stands for, as one downloads it after cuda::quantize: scales and zero points in f16,
/// t in f32. The inverse of to_device_layout for matrices that are stored like that, of at most 8 bits a code and
/// groups of 32, 64 or 128 columns.
/// @param method  name in the method table, for the record
[[nodiscard]] inline packed_matrix from_device_layout(const device_image& image, std::string method) {
  const device_format& d = image.format;
  const bool table = d.form == code_form::table4;
  const bool nf4 = table && std::equal(nf4_levels.begin(), nf4_levels.end(), image.levels.begin());
  packed_matrix p;
  p.format = {.rows = d.rows,
              .cols = d.cols,
              .bits = static_cast<int>(bits_of(d.form)),
              .group_size = d.group_size,
              .grid = nf4     ? grid::nf4
                      : table ? grid::custom
                              : grid::uniform,
              .has_col_scale = true,
              .col_scale_type = dtype::f32};
  p.method = std::move(method);
  const packed_sizes sizes = packed_bytes(p.format);
  aligned_buffer<byte> codes{sizes.codes}, scale{sizes.scale}, zero{sizes.zero}, t{sizes.col_scale},
      levels{sizes.levels};
  const std::size_t aux_row = sizes.scale / d.rows;
  detail::read_codes(image, codes.span());
  for (std::size_t i = 0; i < d.rows; ++i)
    detail::read_auxiliaries(image, i, scale.span().subspan(i * aux_row, aux_row),
                             zero.span().subspan(i * aux_row, aux_row));
  std::vector<float> whole(d.cols);
  for (std::size_t j = 0; j < d.cols; ++j) whole[j] = image.t[j] * image.unit[j / d.group_size];
  store_floats(whole, dtype::f32, t.data());
  if (!levels.empty()) store_floats(image.levels, dtype::f32, levels.data());
  p.codes = shared_bytes{std::move(codes)};
  p.scale = shared_bytes{std::move(scale)};
  p.zero = shared_bytes{std::move(zero)};
  p.col_scale = shared_bytes{std::move(t)};
  p.levels = shared_bytes{std::move(levels)};
  return p;
}

} // namespace sinq::cuda
