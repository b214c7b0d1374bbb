#pragma once

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

/// One part of a quantized tensor: where it lies in the packed matrix, and how it lies in the file.
struct part_layout {
  std::string_view suffix;
  shared_bytes packed_matrix::*bytes;
  std::vector<std::size_t> shape;
  std::vector<dtype> types; ///< those it may have; the one it is written with first
  bool is_aux = false;      ///< has the type of all scales and zero points, or of all their bases
};

/// The parts of a matrix of that format, codes first.
[[nodiscard]] inline std::vector<part_layout> parts_of(const matrix_format& f) {
  const auto first = [](dtype written, std::initializer_list<dtype> types) {
    std::vector<dtype> all{types};
    std::stable_partition(all.begin(), all.end(), [&](dtype type) { return type == written; });
    return all;
  };
  const std::vector<dtype> aux = first(storage(f.aux), {dtype::f16, dtype::bf16, dtype::f32});
  const std::vector<dtype> codes{dtype::u8};
  const std::vector<std::size_t> values{f.rows, f.groups()};
  const std::vector<std::size_t> bases{f.rows, f.super_groups()};
  const auto stream = [&](int bits) { return std::vector{stream_bytes(bits, f.rows * f.groups())}; };
  std::vector<part_layout> parts;
  parts.push_back({codes_suffix, &packed_matrix::codes, {f.rows, stream_bytes(f.bits, f.cols)}, codes});
  if (f.scale_bits == 0) {
    parts.push_back({scale_suffix, &packed_matrix::scale, values, aux, true});
  } else {
    parts.push_back({scale_suffix, &packed_matrix::scale, stream(f.scale_bits), codes});
    parts.push_back({scale_base_suffix, &packed_matrix::scale_base, bases, aux, true});
  }
  if (f.has_zero && f.zero_bits == 0) {
    parts.push_back({zero_suffix, &packed_matrix::zero, values, aux, true});
  } else if (f.has_zero) {
    parts.push_back({zero_suffix, &packed_matrix::zero, stream(f.zero_bits), codes});
    parts.push_back({zero_base_suffix, &packed_matrix::zero_base, bases, aux, true});
  }
  if (f.has_col_scale)
    parts.push_back({col_scale_suffix, &packed_matrix::col_scale,
                     f.row_tiles() == 1 ? std::vector{f.cols} : std::vector{f.row_tiles(), f.cols},
                     first(f.col_scale_type, {dtype::f16, dtype::bf16, dtype::f32, dtype::f8_e4m3})});
  if (f.grid == grid::custom)
    parts.push_back({levels_suffix, &packed_matrix::levels, {levels({.bits = f.bits}).size()}, {dtype::f32}});
  return parts;
}

} // namespace detail

/// Writes a packed matrix under the name of the tensor that it stands for; see io/README.md for the tensors it makes.
/// @param original  element type that the weight had
/// @errors          those of model_writer
[[nodiscard]] inline result<void> write_packed(model_writer& to, std::string_view name, const packed_matrix& p,
                                               dtype original) {
  if (auto done = to.keep_together(p.size_bytes()); !done) return done;
  for (const detail::part_layout& part : detail::parts_of(p.format)) {
    auto done = to.add(detail::joined(name, part.suffix), part.types.front(), part.shape, (p.*part.bytes).span());
    if (!done) return done;
  }
  return to.set_shard_metadata(detail::joined(checkpoint_tensor_prefix, name), detail::describe(p, original));
}

} // namespace sinq::io
