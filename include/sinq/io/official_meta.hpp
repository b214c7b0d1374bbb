#pragma once

#include "../pack/layout.hpp"
#include "json_file.hpp"
#include "official_packing.hpp"
#include "tensor_info.hpp"

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sinq::io {

/// Endings of the names of a quantized layer's tensors; the layer stands for the tensor LAYER.weight.
inline constexpr std::string_view official_codes_suffix = ".W_q";
inline constexpr std::string_view official_meta_infix = ".meta.";
inline constexpr std::string_view official_weight_suffix = ".weight";

/// One quantized layer of an official checkpoint: what is told of it, and, once its tensors were looked at, how its
/// weight is held here.
struct official_layer {
  std::string name;
  std::string method;                               ///< as the checkpoint spells it
  matrix_format format;                             ///< shape and bits; the rest follows from the tensors
  std::size_t stated_group_size = 0;                ///< 0: none stated
  std::vector<std::size_t> scale_shape, zero_shape; ///< of quantized scales and zero points, before they were cut
  std::optional<dtype> original;                    ///< element type of the weight, if it is told (ours tells it)

  [[nodiscard]] std::string tensor(std::string_view suffix) const { return std::string{name}.append(suffix); }
  /// Rows of codes: all groups of all rows.
  [[nodiscard]] std::size_t code_rows() const { return format.rows * format.groups(); }
};

namespace detail {

inline constexpr const char* original_dtype_key = "original_dtype";

[[nodiscard]] inline error unexpected_field(std::string_view key, const nlohmann::json& found,
                                            std::string_view expected, errc code = errc::malformed) {
  return make_error(code, key, " is ", in_quotes(found.dump()), ", expected ", expected);
}

/// A field, or null if there is none.
[[nodiscard]] inline const nlohmann::json& field(const nlohmann::json& of, std::string_view key) {
  static const nlohmann::json none;
  const auto found = of.find(std::string{key});
  return found == of.end() ? none : *found;
}

/// An array of whole numbers; nothing if the field is null.
[[nodiscard]] inline result<std::vector<std::size_t>> shape_field(const nlohmann::json& meta, std::string_view key) {
  const nlohmann::json& found = field(meta, key);
  std::vector<std::size_t> shape;
  if (found.is_null()) return shape;
  if (!found.is_array() || found.size() > 8) return unexpected_field(key, found, "a short array of whole numbers");
  for (const nlohmann::json& extent : found) {
    if (!extent.is_number_unsigned()) return unexpected_field(key, found, "an array of whole numbers");
    shape.push_back(extent.get<std::size_t>());
  }
  return shape;
}

/// Refuses variants of the format that are never written and not known here.
[[nodiscard]] inline result<void> check_official_variant(const nlohmann::json& meta) {
  if (const auto& axis = field(meta, "axis"); !axis.is_null() && axis != 1)
    return unexpected_field("axis", axis, "1", errc::unsupported);
  if (const auto& view = field(meta, "view_as_float"); !view.is_null() && view != false)
    return unexpected_field("view_as_float", view, "false", errc::unsupported);
  if (const auto& awq = field(meta, "awq_scale"); !awq.is_null())
    return unexpected_field("awq_scale", awq, "null", errc::unsupported);
  return {};
}

[[nodiscard]] inline grid official_grid(std::string_view method) {
  if (method.find("nf3") != method.npos) return grid::nf3;
  return method.find("nf4") != method.npos ? grid::nf4 : grid::uniform;
}

/// Width and shape of a layer.
[[nodiscard]] inline result<void> read_official_format(const nlohmann::json& meta, matrix_format& f) {
  const auto& bits = field(meta, "nbits");
  if (!bits.is_number_unsigned() || bits > 8 || !is_supported_bits(bits.get<int>()))
    return unexpected_field("nbits", bits, "2, 3, 4, 5, 6 or 8",
                            bits.is_number() ? errc::unsupported : errc::malformed);
  f.bits = bits.get<int>();
  const std::string_view packing = packing_of(f.bits).name;
  if (const auto& found = field(meta, "packing"); found != std::string{packing})
    return unexpected_field("packing", found, packing);
  const auto shape = shape_field(meta, "shape");
  if (!shape) return shape.error();
  if (shape->size() != 2) return unexpected_field("shape", field(meta, "shape"), "two whole numbers");
  f.rows = (*shape)[0];
  f.cols = (*shape)[1];
  return {};
}

} // namespace detail

/// Reads what is told of one layer.
/// @param meta  its object "meta" in the `.meta.json`
/// @errors      errc::malformed, errc::unsupported (a width or variant), and those of check_format
[[nodiscard]] inline result<official_layer> parse_official_layer(std::string name, const nlohmann::json& meta) {
  official_layer layer;
  layer.name = std::move(name);
  if (!meta.is_object()) return detail::unexpected_field("meta", meta, "an object");
  if (auto known = detail::check_official_variant(meta); !known) return std::move(known).error();
  if (auto read = detail::read_official_format(meta, layer.format); !read) return std::move(read).error();
  const auto& method = detail::field(meta, "method");
  if (!method.is_string()) return detail::unexpected_field("method", method, "a string");
  layer.method = method.get<std::string>();
  layer.format.grid = detail::official_grid(layer.method);
  const auto& group = detail::field(meta, "group_size");
  if (!group.is_null() && (!group.is_number_unsigned() || group == 0))
    return detail::unexpected_field("group_size", group, "a whole number of at least 1, or null");
  if (!group.is_null()) layer.stated_group_size = group.get<std::size_t>();
  for (const auto& [key, to] : {std::pair{"scale.shape", &layer.scale_shape}, {"zero.shape", &layer.zero_shape}}) {
    auto shape = detail::shape_field(meta, key);
    if (!shape) return std::move(shape).error();
    *to = *std::move(shape);
  }
  if (const auto& type = detail::field(meta, detail::original_dtype_key); !type.is_null()) {
    layer.original = type.is_string() ? parse_dtype(type.get<std::string>()) : std::nullopt;
    if (!layer.original || !info(*layer.original).is_float)
      return detail::unexpected_field(detail::original_dtype_key, type, "a floating type");
  }
  if (auto possible = check_format(layer.format); !possible) return std::move(possible).error();
  return layer;
}

/// The object "meta" of a layer that is written with plain f16 scales and zero points.
/// It has no "scale.shape": the package's reader stumbles over one beside a tensor `.meta.scale`.
/// @param original  element type of the weight that was quantized, for our own reader; others ignore it
[[nodiscard]] inline nlohmann::json official_layer_meta(const matrix_format& f, dtype original) {
  const official_packing& packing = packing_of(f.bits);
  return {{"nbits", f.bits},
          {"group_size", f.group_size},
          {"shape", {f.rows, f.cols}},
          {"awq_scale", nullptr},
          {"axis", 1},
          {"packing", packing.name},
          {"method", "sinq"},
          {"compute_dtype", "torch.float32"},
          {"unpack_view_dtype", packing.word == dtype::u8 ? "torch.uint8" : "torch.int32"},
          {"view_as_float", false},
          {detail::original_dtype_key, to_string(original)}};
}

} // namespace sinq::io
