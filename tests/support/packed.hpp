#pragma once

/// Compares packed matrices, and panels, byte by byte.

#include <sinq/pack/layout.hpp>

#include <algorithm>

namespace sinq_test {

[[nodiscard]] inline bool same_bytes(const sinq::shared_bytes& a, const sinq::shared_bytes& b) {
  return std::equal(a.span().begin(), a.span().end(), b.span().begin(), b.span().end());
}

/// Whether two weights in the same layout are equal in every byte, and in what is told of them.
[[nodiscard]] inline bool same_packed(const sinq::matrix_parts& a, const sinq::matrix_parts& b) {
  return a.format == b.format && a.method == b.method && same_bytes(a.codes, b.codes) && same_bytes(a.scale, b.scale) &&
         same_bytes(a.zero, b.zero) && same_bytes(a.col_scale, b.col_scale) && same_bytes(a.scale_base, b.scale_base) &&
         same_bytes(a.zero_base, b.zero_base) && same_bytes(a.levels, b.levels);
}

} // namespace sinq_test
