#pragma once

#include "../math/hadamard.hpp"
#include "rtn.hpp"
#include "tiles.hpp"

#include <span>
#include <utility>

namespace sinq {

/// Round to nearest of rotated rows: the Walsh-Hadamard rotation spreads an outlier over its block of columns.
/// W R ~ rtn(W R), R as in math/hadamard.hpp in blocks of format.rotation columns; dequantizing rotates back.
/// @param w       [N x K] of any floating type, finite
/// @param format  of the result; rotation is hadamard_block(K), or 0 where that is 1
/// @param sink    as in quantize_tiles
/// @errors        errc::empty_matrix, errc::non_finite (the first row and column), errc::not_representable (weights so
///                large that rotated ones overflow: beyond 3e38 / sqrt(block)), errc::invalid_argument, errc::cancelled
/// Numerics: the rotation in f32; rtn as in its class. Rows are independent, in parallel. Memory: a row for each task.
[[nodiscard]] inline result<quantized_matrix> quantize_rotated(const weight_view& w, const matrix_format& format,
                                                               std::string method, const rtn& q,
                                                               const run_options& run = {},
                                                               block_sink* sink = nullptr) {
  if (result<void> ok = check_quantizable(w, format.group_size); !ok) return ok.error();
  SINQ_ASSERT(!format.has_col_scale && q.group_size() == format.group_size && q.bits() == format.bits);
  const auto rotate = [&](std::size_t i, std::span<float> row) -> result<void> {
    if (format.rotation == 0) return {};
    hadamard_rotate(row, format.rotation);
    if (all_finite(row)) return {};
    return make_error(errc::not_representable, "row ", i, " overflows when it is rotated in blocks of ",
                      format.rotation);
  };
  return detail::quantize_rows(w, format, std::move(method), q, run, sink, rotate);
}

} // namespace sinq
