#pragma once

#include "feedback.hpp"
#include "options.hpp"

#include <utility>

namespace sinq::detail {

/// Groups in a super-group: all of a row up to 95, then 64 or a little more or less, so that the last is not a short
/// one.
[[nodiscard]] constexpr std::size_t even_super_group(std::size_t groups) {
  const std::size_t supers = groups < 96 ? 1 : (groups + 32) / 64;
  return (groups + supers - 1) / supers;
}

/// The format of what `finish` makes of a result of that format.
[[nodiscard]] inline matrix_format finished_format(matrix_format f, const quantize_options& o) {
  f.scale_bits = o.scale_bits;
  f.zero_bits = f.has_zero ? o.zero_bits : 0;
  if (f.scale_bits != 0 || f.zero_bits != 0)
    f.super_group = o.super_group != 0 ? o.super_group : even_super_group(f.groups());
  return f;
}

/// Whether scales, zero points and codes are fitted anew to what will be stored, in a result of that finished format.
[[nodiscard]] inline bool needs_fit(const matrix_format& finished, const quantize_options& o) {
  const bool narrow_t = finished.has_col_scale && finished.col_scale_type == dtype::f8_e4m3;
  return o.chosen_refinement() != refine_mode::none || finished.scale_bits != 0 || finished.zero_bits != 0 || narrow_t;
}

/// Scales and zero points of the widths that are asked for, refined if that is asked for too.
[[nodiscard]] inline result<void> fit_to_storage(const weight_view& w, const quantize_options& o, quantized_matrix& q) {
  for (const int bits : {o.scale_bits, o.zero_bits})
    if (bits != 0 && !is_supported_aux_bits(bits))
      return make_error(errc::invalid_argument, "scales or zero points of ", bits, " bits, expected 4, 5, 6 or 8");
  const refine_mode mode = o.chosen_refinement();
  q.format = finished_format(q.format, o);
  if (!needs_fit(q.format, o)) return {};
  if (q.format.scale_bits != 0) q.scale_base.assign(q.format.rows * q.format.super_groups(), 0.0f);
  if (q.format.zero_bits != 0) q.zero_base.assign(q.format.rows * q.format.super_groups(), 0.0f);
  std::vector<double> energies;
  if (mode == refine_mode::inputs) {
    if (o.inputs != nullptr) energies = o.inputs->energies();
    if (energies.empty())
      return make_error(errc::invalid_argument,
                        "refinement with inputs needs their second moments, and none are given");
  }
  return refine(w, q, std::move(energies), o.refinement, mode != refine_mode::none, o.run);
}

/// What every method's result goes through: scales and zero points of the widths that are asked for, and refinement.
/// @param feedback  the method is made of it; otherwise it is part of refinement with inputs that have a hessian
/// @errors          errc::invalid_argument (widths; refinement with inputs that hold no energies), errc::cancelled
[[nodiscard]] inline result<quantized_matrix> finish(const weight_view& w, const quantize_options& o, bool feedback,
                                                     result<quantized_matrix> made) {
  if (!made) return made;
  if (result<void> fitted = fit_to_storage(w, o, *made); !fitted) return fitted.error();
  const bool has_hessian = o.inputs != nullptr && (o.inputs->hessian.size() > 0 || o.inputs->inputs.size() > 0);
  if (feedback || (o.chosen_refinement() == refine_mode::inputs && has_hessian && o.refinement_feedback))
    if (result<void> fed = feed_back(w, *made, *o.inputs, o.feedback, o.run); !fed) return fed.error();
  return made;
}

} // namespace sinq::detail
