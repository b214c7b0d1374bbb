#pragma once

#include "../core/error.hpp"
#include "quantized_matrix.hpp"

#include <concepts>
#include <span>

namespace sinq {

/// What a quantizer must offer to be used alone, inside `sinkhorn_quantizer`, or by `quantize_tiles`; a user's own type
/// will do as well. It is constructed from its options, has no other state, and its call operator is const.
///   q.bits()          width of its codes
///   q.group_size()    columns that share a scale
///   q.row_independent a constant: true if a row's result does not depend on the other rows
///   q(w)              [N x K] finite floats -> quantized_matrix of the same shape, or an error
template <class Q>
concept quantizer = requires(const Q& q, matrix_view<const float> w) {
  { q.bits() } -> std::same_as<int>;
  { q.group_size() } -> std::same_as<std::size_t>;
  { Q::row_independent } -> std::convertible_to<bool>;
  { q(w) } -> std::same_as<result<quantized_matrix>>;
};

namespace detail {

/// Quantizes row i group by group into `out`: q.group(weights, codes) gives the scale and zero point of one.
template <class Q>
void quantize_groups(const Q& q, std::span<const float> row, std::size_t i, quantized_matrix& out) {
  const matrix_format& f = out.format;
  for (std::size_t g = 0; g < f.groups(); ++g) {
    const std::size_t begin = g * f.group_size;
    const std::size_t count = f.group_cols(g);
    const auto fit = q.group(row.subspan(begin, count), out.codes.span().subspan(i * f.cols + begin, count));
    out.scale[i * f.groups() + g] = fit.scale;
    if (f.has_zero) out.zero[i * f.groups() + g] = fit.zero;
  }
}

} // namespace detail

} // namespace sinq
