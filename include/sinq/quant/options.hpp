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

  [[nodiscard]] rtn_options rtn() const {
    return {.group_size = group_size, .symmetric = symmetric, .zero = zero, .aux = aux};
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

/// Calls f with std::integral_constant<int, bits>, so that a run-time width picks a compile-time one.
/// @errors  errc::invalid_argument for a width that cannot be packed
template <class F>
[[nodiscard]] auto with_bits(int bits, F&& f) -> decltype(f(std::integral_constant<int, 4>{})) {
  switch (bits) {
  case 2: return f(std::integral_constant<int, 2>{});
  case 3: return f(std::integral_constant<int, 3>{});
  case 4: return f(std::integral_constant<int, 4>{});
  case 5: return f(std::integral_constant<int, 5>{});
  case 6: return f(std::integral_constant<int, 6>{});
  case 8: return f(std::integral_constant<int, 8>{});
  default: return make_error(errc::invalid_argument, "bits is ", bits, ", expected 2, 3, 4, 5, 6 or 8");
  }
}

} // namespace sinq
