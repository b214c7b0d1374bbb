#pragma once

#include "../core/error.hpp"
#include "group_loops.hpp"
#include "quantized_matrix.hpp"

#include <concepts>

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

/// A quantizer of rows that do not depend on each other, for `quantize_tiles` to run on rows of any number of groups:
///   q.block(w, to)  writes codes, scales and zero points of some rows
template <class Q>
concept block_quantizer = quantizer<Q> && Q::row_independent &&
    requires(const Q& q, matrix_view<const float> w, const detail::rows_result& to) {
  q.block(w, to);
};

} // namespace sinq
