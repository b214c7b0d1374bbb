#pragma once

#include "../core/types.hpp"

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sinq::io {

/// Free text of a safetensors file, under `__metadata__` in its header.
using metadata_map = std::map<std::string, std::string>;

/// The one header key that is not a tensor.
inline constexpr std::string_view metadata_key = "__metadata__";

/// Names of the tensors that a writer puts between others to align them: `__pad__.0`, `__pad__.1`, ...
inline constexpr std::string_view padding_prefix = "__pad__.";

/// True for a tensor that only fills the gap before an aligned one.
[[nodiscard]] constexpr bool is_padding(std::string_view tensor_name) {
  return tensor_name.starts_with(padding_prefix);
}

/// A shape as people write it: "[4, 64]", "[]" for a scalar.
[[nodiscard]] inline std::string to_string(std::span<const std::size_t> shape) {
  std::string text{"["};
  for (const std::size_t extent : shape) text.append(text.size() > 1 ? ", " : "").append(std::to_string(extent));
  return text.append("]");
}

/// Bytes that a tensor of that shape takes; nothing if the product does not fit 64 bits. A shape of rank 0 is a scalar.
[[nodiscard]] inline std::optional<std::size_t> tensor_bytes(dtype type, std::span<const std::size_t> shape) {
  std::size_t product = size_bytes(type);
  for (const std::size_t extent : shape)
    if (__builtin_mul_overflow(product, extent, &product)) return std::nullopt;
  return product;
}

/// One tensor of a file: its name, element type and shape, and where in the data section its bytes lie.
struct tensor_info {
  std::string name;
  dtype type = dtype::f32;
  std::vector<std::size_t> shape;
  std::size_t begin = 0; ///< first byte, counted from the start of the data section
  std::size_t end = 0;   ///< one past the last byte

  [[nodiscard]] std::size_t size_bytes() const { return end - begin; }
  [[nodiscard]] std::size_t elements() const { return size_bytes() / sinq::size_bytes(type); }
};

} // namespace sinq::io
