#pragma once

#include "../core/parallel.hpp"
#include "../math/sinkhorn.hpp"
#include "rtn.hpp"

#include <cstdint>

namespace sinq {

/// The quantizers behind `quantize`; `method_table` has their names.
enum class method : std::uint8_t {
  rtn,  ///< round to nearest
  sinq, ///< Sinkhorn normalisation, then round to nearest
};

/// Everything that `quantize` can be told.
struct quantize_options {
  sinq::method method = sinq::method::sinq;
  int bits = 4;
  std::size_t group_size = 64;
  aux_dtype aux = aux_dtype::f16; ///< storage of scales, zero points and t
  bool symmetric = false;
  zero_mode zero = zero_mode::rounded;
  sinkhorn_options sinkhorn{};
  run_options run{};

  /// The quantizer inside most methods. @pre is_supported_bits(bits)
  [[nodiscard]] sinq::rtn rtn() const {
    return sinq::rtn{bits, {.group_size = group_size, .symmetric = symmetric, .zero = zero, .aux = aux}};
  }
  /// Format of a result of that shape.
  [[nodiscard]] matrix_format format(std::size_t rows, std::size_t cols, bool has_col_scale) const {
    return {.rows = rows,
            .cols = cols,
            .bits = bits,
            .group_size = group_size,
            .aux = aux,
            .has_zero = !symmetric,
            .has_col_scale = has_col_scale,
            .col_scale_type = storage(aux)};
  }
};

} // namespace sinq
