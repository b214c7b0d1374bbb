#pragma once

/// Quantized matrices with seeded random contents in every storage that the format knows.

#include "support/random_matrices.hpp"

#include <sinq/quant/quantized_matrix.hpp>

#include <vector>

namespace sinq_test {

/// A matrix of that format whose every part is random and can be stored exactly: powers of two times small integers.
[[nodiscard]] inline sinq::quantized_matrix random_quantized(const sinq::matrix_format& format, std::uint64_t seed) {
  random_source random{seed};
  auto q = sinq::quantized_matrix::allocate(format, "test");
  const auto pick = [&](int below) { return static_cast<float>(random.index(static_cast<std::size_t>(below))); };
  for (std::uint8_t& code : q.codes)
    code = static_cast<std::uint8_t>(random.index(static_cast<std::size_t>(sinq::max_code(format.bits)) + 1));
  for (float& base : q.scale_base) base = std::ldexp(1.0f + pick(4), -8);
  for (float& base : q.zero_base) base = std::ldexp(1.0f + pick(4), -6);
  const std::size_t groups = format.groups();
  for (std::size_t n = 0; n < q.scale.size(); ++n) {
    const std::size_t base = n / groups * format.super_groups() + format.super_group_of(n % groups);
    q.scale[n] = std::ldexp(1.0f + pick(64), -10);
    if (format.scale_bits != 0) q.scale[n] = q.scale_base[base] * pick(1 << format.scale_bits);
    if (!format.has_zero) continue;
    q.zero[n] = pick(256) / 16;
    if (format.zero_bits != 0)
      q.zero[n] = format.symmetric_zero() +
                  q.zero_base[base] * (pick(1 << format.zero_bits) - std::ldexp(1.0f, format.zero_bits - 1));
  }
  for (float& t : q.col_scale) t = std::ldexp(8.0f + pick(8), -4);
  for (float& level : q.custom_levels) level = static_cast<float>(random.normal());
  return q;
}

/// One format for each part and type that can be stored, and some of all together.
[[nodiscard]] inline std::vector<sinq::matrix_format> every_storage(std::size_t rows, std::size_t cols) {
  std::vector<sinq::matrix_format> formats;
  const sinq::matrix_format plain{.rows = rows, .cols = cols, .group_size = 16};
  const auto add = [&](auto&& change) {
    sinq::matrix_format& f = formats.emplace_back(plain);
    change(f);
    if (!f.has_col_scale) f.col_scale_type = storage(f.aux);
  };
  add([](auto&) {});
  for (const sinq::dtype type : {sinq::dtype::f16, sinq::dtype::bf16, sinq::dtype::f32, sinq::dtype::f8_e4m3})
    add([&](auto& f) { f.has_col_scale = true, f.col_scale_type = type, f.tile_rows = 3; });
  for (const int bits : sinq::supported_aux_bits)
    for (const std::size_t super_group : {0u, 1u, 2u, 3u}) {
      add([&](auto& f) { f.scale_bits = bits, f.super_group = super_group, f.aux = sinq::aux_dtype::bf16; });
      add([&](auto& f) { f.zero_bits = bits, f.super_group = super_group, f.aux = sinq::aux_dtype::f32; });
    }
  add([](auto& f) { f.grid = sinq::grid::nf4, f.has_zero = false; });
  add([](auto& f) { f.grid = sinq::grid::nf3, f.bits = 3, f.zero_bits = 4; });
  for (const int bits : sinq::supported_bits)
    add([&](auto& f) {
      f.grid = sinq::grid::custom, f.bits = bits, f.scale_bits = 6, f.zero_bits = 4, f.super_group = 2;
      f.has_col_scale = true, f.col_scale_type = sinq::dtype::f8_e4m3, f.tile_rows = 2;
    });
  if (cols % 2 == 0) add([](auto& f) { f.rotation = 2, f.has_col_scale = true; });
  return formats;
}

} // namespace sinq_test
