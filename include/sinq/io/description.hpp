#pragma once

#include "../pack/layout.hpp"
#include "file_system.hpp"

#include <nlohmann/json.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace sinq::io {

/// How the codes, scales and zero points of a quantized tensor lie in a native checkpoint.
enum class code_layout : std::uint8_t {
  canonical, ///< as in packed_matrix: rows, which every conversion reads
  panels,    ///< as in panel_matrix: what `matmul` reads
};

/// Layouts as descriptions spell them, in the order of the enumeration.
inline constexpr std::array<std::string_view, 2> layout_names{"canonical", "panels"};

[[nodiscard]] constexpr std::string_view to_string(code_layout layout) {
  return layout_names[static_cast<std::size_t>(layout)];
}

/// The layout of that name.
[[nodiscard]] constexpr std::optional<code_layout> parse_layout(std::string_view name) {
  for (std::size_t n = 0; n < layout_names.size(); ++n)
    if (layout_names[n] == name) return static_cast<code_layout>(n);
  return std::nullopt;
}

} // namespace sinq::io

namespace sinq::io::detail {

inline constexpr std::size_t max_description_bytes = 4096;

/// Grids as descriptions spell them, in the order of the enumeration.
inline constexpr std::array<std::string_view, 4> grid_names{"uniform", "nf4", "nf3", "custom"};

/// What a checkpoint says of a quantized tensor: everything but the storage types, which its parts themselves have.
struct description {
  matrix_format format;
  code_layout layout = code_layout::canonical;
  dtype original = dtype::f32;
  std::string method;
};

[[nodiscard]] inline std::string describe(const matrix_parts& p, code_layout layout, dtype original) {
  const matrix_format& f = p.format;
  return nlohmann::json{{"method", p.method},          {"bits", f.bits},
                        {"group_size", f.group_size},  {"grid", grid_names[static_cast<std::size_t>(f.grid)]},
                        {"layout", to_string(layout)}, {"zero", f.has_zero},
                        {"t", f.has_col_scale},        {"dtype", to_string(original)},
                        {"shape", {f.rows, f.cols}},   {"tile_rows", f.tile_rows},
                        {"rotation", f.rotation},      {"scale_bits", f.scale_bits},
                        {"zero_bits", f.zero_bits},    {"super_group", f.super_group}}
      .dump();
}

[[nodiscard]] inline std::size_t whole_number(const nlohmann::json& value) {
  if (value.is_number_unsigned()) return value.get<std::size_t>();
  throw nlohmann::json::other_error::create(501, "expected a whole number, found " + value.dump(), &value);
}

/// A width: numbers beyond any are all the same.
[[nodiscard]] inline int bits_of(const nlohmann::json& value) {
  return static_cast<int>(std::min<std::size_t>(whole_number(value), 255));
}

[[nodiscard]] inline result<grid> parse_grid(const std::string& name) {
  for (std::size_t n = 0; n < grid_names.size(); ++n)
    if (grid_names[n] == name) return static_cast<grid>(n);
  return make_error(errc::unsupported, "grid ", in_quotes(name), ", expected uniform, nf4, nf3 or custom");
}

/// Reads one description; throws nlohmann::json::exception for anything but the fields expected.
[[nodiscard]] inline result<description> parse_fields(const nlohmann::json& fields, bool first_version) {
  description d;
  matrix_format& f = d.format;
  d.method = fields.at("method").get<std::string>();
  f.bits = bits_of(fields.at("bits"));
  f.group_size = whole_number(fields.at("group_size"));
  f.has_zero = fields.at("zero").get<bool>();
  f.has_col_scale = fields.at("t").get<bool>();
  if (!first_version) {
    f.tile_rows = whole_number(fields.at("tile_rows"));
    f.rotation = whole_number(fields.at("rotation"));
    f.scale_bits = bits_of(fields.at("scale_bits"));
    f.zero_bits = bits_of(fields.at("zero_bits"));
    f.super_group = whole_number(fields.at("super_group"));
  }
  const nlohmann::json& shape = fields.at("shape");
  if (shape.size() != 2) return make_error(errc::malformed, "shape is ", shape.dump(), ", expected two numbers");
  f.rows = whole_number(shape.at(0));
  f.cols = whole_number(shape.at(1));
  const auto found = parse_grid(fields.at("grid").get<std::string>());
  if (!found) return found.error();
  f.grid = *found;
  const auto name = fields.at("layout").get<std::string>();
  const std::optional<code_layout> layout = parse_layout(name);
  if (!layout) return make_error(errc::unsupported, "layout ", in_quotes(name), ", expected canonical or panels");
  d.layout = *layout;
  const auto type = fields.at("dtype").get<std::string>();
  const std::optional<dtype> original = parse_dtype(type);
  if (!original || !info(*original).is_float)
    return make_error(errc::malformed, "dtype is ", in_quotes(type), ", expected that of a floating type");
  d.original = *original;
  return d;
}

/// @errors errc::malformed (text that is too long or cannot be read), errc::unsupported (grid, layout), and those of
///         check_format
[[nodiscard]] inline result<description> parse_description(const std::string& text, bool first_version) {
  if (text.size() > max_description_bytes)
    return make_error(errc::malformed, "the description has ", text.size(), " bytes, expected at most ",
                      max_description_bytes);
  try {
    result<description> d = parse_fields(nlohmann::json::parse(text), first_version);
    if (!d) return d;
    if (result<void> ok = check_format(d->format); !ok) return ok.error();
    return d;
  } catch (const nlohmann::json::exception& failure) {
    return make_error(errc::malformed, "the description ", in_quotes(text), " cannot be read: ", failure.what());
  }
}

} // namespace sinq::io::detail
