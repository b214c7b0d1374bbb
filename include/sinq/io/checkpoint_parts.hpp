#pragma once

#include "../pack/panels.hpp"
#include "description.hpp"
#include "model_writer.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

namespace sinq::io {

/// Version of the native checkpoint that is written; `__metadata__` holds it under `checkpoint_version_key`. Version 1,
/// whose descriptions lack the fields from tile_rows on, is read too.
inline constexpr std::string_view checkpoint_version = "2";
inline constexpr std::string_view checkpoint_version_key = "sinq.version";
/// The description of quantized tensor NAME is in `__metadata__` under this prefix and NAME.
inline constexpr std::string_view checkpoint_tensor_prefix = "sinq.tensor.";

/// Endings of the names of the parts of a quantized tensor.
inline constexpr std::array<std::string_view, 7> part_suffixes{
    ".sinq.codes", ".sinq.scale", ".sinq.zero", ".sinq.t", ".sinq.scale_base", ".sinq.zero_base", ".sinq.levels"};

namespace detail {

inline constexpr std::string_view codes_suffix = part_suffixes[0];
inline constexpr std::string_view scale_suffix = part_suffixes[1];
inline constexpr std::string_view zero_suffix = part_suffixes[2];
inline constexpr std::string_view col_scale_suffix = part_suffixes[3];
inline constexpr std::string_view scale_base_suffix = part_suffixes[4];
inline constexpr std::string_view zero_base_suffix = part_suffixes[5];
inline constexpr std::string_view levels_suffix = part_suffixes[6];

[[nodiscard]] inline std::string joined(std::string_view a, std::string_view b) {
  return std::string{a}.append(b);
}

} // namespace detail

/// Marks a model as a native checkpoint; to be called before its first tensor.
[[nodiscard]] inline result<void> begin_checkpoint(model_writer& to) {
  return to.set_metadata(std::string{checkpoint_version_key}, std::string{checkpoint_version});
}

namespace detail {

/// One part of a quantized tensor: where it lies in memory, and how it lies in the file.
struct part_layout {
  std::string_view suffix;
  shared_bytes matrix_parts::*bytes;
  std::vector<std::size_t> shape;
  std::vector<dtype> types; ///< those it may have; the one it is written with first
  bool is_aux = false;      ///< has the type of all scales and zero points, or of all their bases
};

/// Shapes of what differs between the layouts.
struct layout_shapes {
  layout_shapes(const matrix_format& f, code_layout layout) : format{f} {
    const panel_shape shape{f};
    if (layout == code_layout::panels) {
      codes = {shape.panels, shape.blocks * block_bytes(f.bits)};
      values = {shape.panels, f.groups(), panel_rows};
      bases = {shape.panels, f.super_groups(), panel_rows};
    } else {
      codes = {f.rows, stream_bytes(f.bits, f.cols)};
      values = {f.rows, f.groups()};
      bases = {f.rows, f.super_groups()};
    }
  }

  /// Of scales or zero points that are stored as codes: a byte each in panels, otherwise one stream.
  [[nodiscard]] std::vector<std::size_t> value_codes(int bits) const {
    return values.size() == 3 ? values : std::vector{stream_bytes(bits, format.rows * format.groups())};
  }

  const matrix_format& format;
  std::vector<std::size_t> codes, values, bases;
};

/// The parts of a matrix of that format and layout, codes first.
[[nodiscard]] inline std::vector<part_layout> parts_of(const matrix_format& f, code_layout layout) {
  const auto first = [](dtype written, std::initializer_list<dtype> types) {
    std::vector<dtype> all{types};
    std::stable_partition(all.begin(), all.end(), [&](dtype type) { return type == written; });
    return all;
  };
  const std::vector<dtype> aux = first(storage(f.aux), {dtype::f16, dtype::bf16, dtype::f32});
  const std::vector<dtype> codes{dtype::u8};
  const layout_shapes shapes{f, layout};
  std::vector<part_layout> parts;
  parts.push_back({codes_suffix, &matrix_parts::codes, shapes.codes, codes});
  if (f.scale_bits == 0) {
    parts.push_back({scale_suffix, &matrix_parts::scale, shapes.values, aux, true});
  } else {
    parts.push_back({scale_suffix, &matrix_parts::scale, shapes.value_codes(f.scale_bits), codes});
    parts.push_back({scale_base_suffix, &matrix_parts::scale_base, shapes.bases, aux, true});
  }
  if (f.has_zero && f.zero_bits == 0) {
    parts.push_back({zero_suffix, &matrix_parts::zero, shapes.values, aux, true});
  } else if (f.has_zero) {
    parts.push_back({zero_suffix, &matrix_parts::zero, shapes.value_codes(f.zero_bits), codes});
    parts.push_back({zero_base_suffix, &matrix_parts::zero_base, shapes.bases, aux, true});
  }
  if (f.has_col_scale)
    parts.push_back({col_scale_suffix, &matrix_parts::col_scale,
                     f.row_tiles() == 1 ? std::vector{f.cols} : std::vector{f.row_tiles(), f.cols},
                     first(f.col_scale_type, {dtype::f16, dtype::bf16, dtype::f32, dtype::f8_e4m3})});
  if (f.grid == grid::custom)
    parts.push_back({levels_suffix, &matrix_parts::levels, {levels({.bits = f.bits}).size()}, {dtype::f32}});
  return parts;
}

} // namespace detail

/// Bytes of all parts of a quantized tensor. @pre the format is valid (check_format)
[[nodiscard]] inline std::size_t stored_bytes(const matrix_format& f, code_layout layout) {
  return (layout == code_layout::panels ? panel_bytes(f) : packed_bytes(f)).total();
}

namespace detail {

[[nodiscard]] inline result<void> write_parts(model_writer& to, std::string_view name, const matrix_parts& p,
                                              code_layout layout, dtype original) {
  if (auto done = to.keep_together(stored_bytes(p.format, layout)); !done) return done;
  for (const part_layout& part : parts_of(p.format, layout)) {
    auto done = to.add(joined(name, part.suffix), part.types.front(), part.shape, (p.*part.bytes).span());
    if (!done) return done;
  }
  return to.set_shard_metadata(joined(checkpoint_tensor_prefix, name), describe(p, layout, original));
}

} // namespace detail

/// Writes a packed matrix under the name of the tensor that it stands for; see io/README.md for the tensors it makes.
/// @param original  element type that the weight had
/// @errors          those of model_writer
[[nodiscard]] inline result<void> write_packed(model_writer& to, std::string_view name, const packed_matrix& p,
                                               dtype original) {
  return detail::write_parts(to, name, p, code_layout::canonical, original);
}

/// Writes panels as write_packed writes a packed matrix, so that `matmul` reads them from the mapped file.
/// @errors  those of model_writer
[[nodiscard]] inline result<void> write_panels(model_writer& to, std::string_view name, const panel_matrix& w,
                                               dtype original) {
  return detail::write_parts(to, name, w, code_layout::panels, original);
}

} // namespace sinq::io
