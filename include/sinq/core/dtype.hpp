#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace sinq {

/// Element types of tensors in files, named as safetensors names them.
enum class dtype : std::uint8_t {
  f64,
  f32,
  f16,
  bf16,
  f8_e4m3,
  f8_e5m2,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean
};

/// Everything known about one element type.
struct dtype_info {
  dtype type;
  std::string_view name; ///< as in a safetensors header
  std::size_t size_bytes;
  bool is_float;
};

inline constexpr std::array<dtype_info, 15> dtype_table{{
    {dtype::f64, "F64", 8, true},
    {dtype::f32, "F32", 4, true},
    {dtype::f16, "F16", 2, true},
    {dtype::bf16, "BF16", 2, true},
    {dtype::f8_e4m3, "F8_E4M3", 1, true},
    {dtype::f8_e5m2, "F8_E5M2", 1, true},
    {dtype::i64, "I64", 8, false},
    {dtype::i32, "I32", 4, false},
    {dtype::i16, "I16", 2, false},
    {dtype::i8, "I8", 1, false},
    {dtype::u64, "U64", 8, false},
    {dtype::u32, "U32", 4, false},
    {dtype::u16, "U16", 2, false},
    {dtype::u8, "U8", 1, false},
    {dtype::boolean, "BOOL", 1, false},
}};

[[nodiscard]] constexpr const dtype_info& info(dtype type) {
  return dtype_table[static_cast<std::size_t>(type)];
}
[[nodiscard]] constexpr std::string_view to_string(dtype type) {
  return info(type).name;
}
[[nodiscard]] constexpr std::size_t size_bytes(dtype type) {
  return info(type).size_bytes;
}

/// The element type of that name ("BF16"), if there is one.
[[nodiscard]] constexpr std::optional<dtype> parse_dtype(std::string_view name) {
  for (const dtype_info& entry : dtype_table)
    if (entry.name == name) return entry.type;
  return std::nullopt;
}

} // namespace sinq
