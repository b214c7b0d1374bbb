#pragma once

#include "../core/convert.hpp"
#include "../core/parallel.hpp"
#include "../pack/aux_codes.hpp"
#include "../pack/layout.hpp"
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

/// Writes codes, scales and zero points of one row into their records.
class row_writer {
public:
  /// @param powers  of scale_powers
  row_writer(const packed_matrix& p, std::span<const int> powers, device_image& image)
      : p_{p}, powers_{powers}, image_{image} {}

  [[nodiscard]] result<void> operator()(std::size_t i) {
    const matrix_format& f = p_.format;
    codes_.resize(f.cols);
    scale_.resize(f.groups());
    zero_.resize(f.groups());
    with_layout(f.bits, [&](auto layout) { layout.unpack_row(p_.code_row(i), codes_); });
    load_auxiliaries(p_, i, scale_, zero_);
    write_codes(static_cast<unsigned>(i));
    return write_auxiliaries(static_cast<unsigned>(i));
  }

private:
  [[nodiscard]] std::uint8_t* record(unsigned i, unsigned unit) const {
    const device_format& d = image_.format;
    return image_.weights.data() + (std::size_t{i / tile_rows} * d.units() + unit) * d.record_bytes();
  }

  void write_codes(unsigned i) {
    const code_form form = image_.format.form;
    for (unsigned j = 0; j < image_.format.cols; ++j) {
      const code_place place = place_of(form, i % tile_rows, j % unit_cols);
      std::uint8_t* const to = record(i, j / unit_cols);
      const unsigned code = codes_[j];
      const unsigned low = form == code_form::u3 ? code & 3u : code;
      to[place.byte] = static_cast<std::uint8_t>(to[place.byte] | low << place.shift);
      if (form == code_form::u3)
        to[place.high_byte] = static_cast<std::uint8_t>(to[place.high_byte] | code >> 2 << place.high_shift);
    }
  }

  [[nodiscard]] result<void> write_auxiliaries(unsigned i) {
    const device_format& d = image_.format;
    for (unsigned g = 0; g * d.group_size < d.cols; ++g) {
      const std::size_t from = std::size_t{g} * d.group_size / p_.format.group_size;
      const auto scale = static_cast<float16>(std::ldexp(scale_[from], -powers_[from]));
      const auto zero = static_cast<float16>(zero_[from]);
      if (!is_finite(to_float(scale)) || !(std::fabs(to_float(zero) - zero_[from]) <= 0x1p-4f))
        return make_error(errc::not_representable, "cuda: scale ", scale_[from], " or zero point ", zero_[from],
                          " of row ", i, ", group ", from, " does not fit F16");
      std::uint8_t* const to = record(i, g / d.unit_groups()) + aux_place(d, i % tile_rows, g % d.unit_groups());
      std::memcpy(to, &scale, sizeof scale);
      std::memcpy(to + sizeof scale, &zero, sizeof zero);
    }
    return {};
  }

  const packed_matrix& p_;
  std::span<const int> powers_;
  device_image& image_;
  std::vector<std::uint8_t> codes_;
  std::vector<float> scale_, zero_;
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

/// Arranges a packed matrix as the device keeps it. Codes of 5 and 6 bits take 8, codebooks of 2 and 3 bits take 4;
/// scales and zero points in bf16, f32 or codes become f16, rounded by 2^-11 of a scale (those above 2^-28 of the
/// largest of their column of groups) and 1/16 of a step at most.
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
  const auto some_rows = [&](std::size_t begin, std::size_t end) -> result<void> {
    detail::row_writer write{p, powers, image};
    for (std::size_t i = begin; i < end; ++i)
      if (result<void> ok = write(i); !ok) return ok;
    return {};
  };
  executor& on = threads != nullptr ? *threads : default_executor();
  if (result<void> ok = parallel_for(on, p.format.rows, std::size_t{tile_rows}, some_rows); !ok) return ok.error();
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

/// Reads codes, scales and zero points of row i back from their records.
inline void read_row(const device_image& image, std::size_t i, std::span<std::uint8_t> codes, std::span<byte> scale,
                     std::span<byte> zero) {
  const device_format& d = image.format;
  const auto in_tile = static_cast<unsigned>(i % tile_rows);
  const auto record = [&](unsigned unit) {
    return image.weights.data() + (i / tile_rows * d.units() + unit) * d.record_bytes();
  };
  for (unsigned j = 0; j < d.cols; ++j) {
    const code_place place = place_of(d.form, in_tile, j % unit_cols);
    const std::uint8_t* const from = record(j / unit_cols);
    const bool planes = d.form == code_form::u3;
    const unsigned mask = planes ? 3u : (1u << bits_of(d.form)) - 1;
    const unsigned high = planes ? (from[place.high_byte] >> place.high_shift & 1u) << 2 : 0;
    codes[j] = static_cast<std::uint8_t>((from[place.byte] >> place.shift & mask) | high);
  }
  for (unsigned g = 0; g * d.group_size < d.cols; ++g) {
    const std::uint8_t* const from = record(g / d.unit_groups()) + aux_place(d, in_tile, g % d.unit_groups());
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
  const std::size_t code_row = sizes.codes / d.rows, aux_row = sizes.scale / d.rows;
  std::vector<std::uint8_t> row(d.cols);
  for (std::size_t i = 0; i < d.rows; ++i) {
    detail::read_row(image, i, row, scale.span().subspan(i * aux_row, aux_row),
                     zero.span().subspan(i * aux_row, aux_row));
    with_layout(p.format.bits,
                [&](auto layout) { layout.pack_row(row, codes.span().subspan(i * code_row, code_row)); });
  }
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
