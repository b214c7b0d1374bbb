#pragma once

#include "../math/hadamard.hpp"
#include "rtn.hpp"
#include "tiles.hpp"

#include <utility>
#include <vector>

namespace sinq {

/// Round to nearest of rotated rows: the Walsh-Hadamard rotation spreads an outlier over its block of columns.
/// W R ~ rtn(W R), R as in math/hadamard.hpp in blocks of format.rotation columns; dequantizing rotates back.
/// @param w       [N x K] of any floating type, finite
/// @param format  of the result; rotation is hadamard_block(K), or 0 where that is 1
/// @errors        errc::empty_matrix, errc::non_finite (the first row and column), errc::not_representable (weights so
///                large that rotated ones overflow: beyond 3e38 / sqrt(block)), errc::invalid_argument, errc::cancelled
/// Numerics: the rotation in f32; rtn as in its class. Rows are independent, in parallel. Memory: a row for each task.
[[nodiscard]] inline result<quantized_matrix> quantize_rotated(const weight_view& w, const matrix_format& format,
                                                               std::string method, const rtn& q,
                                                               const run_options& run = {}) {
  if (result<void> ok = check_quantizable(w, format.group_size); !ok) return ok.error();
  SINQ_ASSERT(!format.has_col_scale && q.group_size() == format.group_size && q.bits() == format.bits);
  quantized_matrix out = quantized_matrix::allocate(format, std::move(method));
  const auto some_rows = [&](std::size_t begin, std::size_t end) -> result<void> {
    std::vector<float> row(w.cols());
    for (std::size_t i = begin; i < end; ++i) {
      if (!detail::load_finite(w, i, 0, {row.data(), 1, row.size()}))
        return make_error(errc::non_finite, "non-finite weight");
      if (format.rotation != 0) hadamard_rotate(std::span{row}, format.rotation);
      for (const float value : row)
        if (!is_finite(value))
          return make_error(errc::not_representable, "row ", i, " overflows when it is rotated in blocks of ",
                            format.rotation);
      detail::quantize_groups(q, row, i, out);
    }
    return {};
  };
  result<void> done =
      parallel_for(run.on(), w.rows(), detail::tile_rows(w.rows(), w.cols() * 4), some_rows, run.progress);
  if (done) return out;
  if (done.error().code == errc::non_finite) return detail::non_finite_weight(w);
  return done.error();
}

} // namespace sinq
