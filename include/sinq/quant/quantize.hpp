#pragma once

#include "options.hpp"
#include "sinkhorn_quantizer.hpp"
#include "tiles.hpp"

#include <array>
#include <optional>
#include <string_view>

namespace sinq {

namespace detail {

[[nodiscard]] inline result<quantized_matrix> quantize_rtn(const weight_view& w, const quantize_options& o) {
  return quantize_tiles(w, o.format(w.rows(), w.cols(), false), "rtn", o.rtn(), o.run);
}

[[nodiscard]] inline result<quantized_matrix> quantize_sinq(const weight_view& w, const quantize_options& o) {
  if (result<void> ok = sinkhorn_normalizer<float>::check(o.sinkhorn); !ok) return ok.error();
  const sinkhorn_quantizer q{o.sinkhorn, o.rtn()};
  return quantize_tiles(w, o.format(w.rows(), w.cols(), true), "sinq", q, o.run);
}

} // namespace detail

/// One line of the method table.
struct method_info {
  method id;
  std::string_view name;    ///< as the tool and the checkpoint spell it
  std::string_view summary; ///< one phrase for people
  result<quantized_matrix> (*quantize)(const weight_view&, const quantize_options&);
};

/// All methods, in the order of the enumeration.
inline constexpr std::array method_table{
    method_info{method::rtn, "rtn", "round to nearest", detail::quantize_rtn},
    method_info{method::sinq, "sinq", "Sinkhorn normalisation, then round to nearest", detail::quantize_sinq},
};

[[nodiscard]] constexpr const method_info& info(method id) {
  return method_table[static_cast<std::size_t>(id)];
}
[[nodiscard]] constexpr std::string_view to_string(method id) {
  return info(id).name;
}

/// The method of that name, if there is one.
[[nodiscard]] constexpr std::optional<method> parse_method(std::string_view name) {
  for (const method_info& entry : method_table)
    if (entry.name == name) return entry.id;
  return std::nullopt;
}

/// Quantizes a weight matrix: the one door over all methods.
/// @param w  [N x K] row-major of any floating type, finite; borrowed for the call
/// @errors   errc::empty_matrix, errc::non_finite (names the first row and column), errc::invalid_argument (names the
///           option, its value and what was expected), errc::cancelled
/// The result does not depend on the number of threads. See the method's own class for equation and numerics.
[[nodiscard]] inline result<quantized_matrix> quantize(const weight_view& w, const quantize_options& options = {}) {
  if (!is_supported_bits(options.bits))
    return make_error(errc::invalid_argument, "bits is ", options.bits, ", expected 2, 3, 4, 5, 6 or 8");
  return info(options.method).quantize(w, options);
}

} // namespace sinq
