#pragma once

#include "awq.hpp"
#include "hadamard_rtn.hpp"
#include "initial_scales.hpp"
#include "options.hpp"
#include "sinkhorn_quantizer.hpp"
#include "tiles.hpp"

/// What stands behind each line of `method_table`: (weights, options, format of the result) -> quantized_matrix. Codes,
/// scales and zero points go to the sink, if one is given, or, at a method's choice, into the result all the same.
namespace sinq::detail {

using quantize_function = result<quantized_matrix>(const weight_view&, const quantize_options&, const matrix_format&,
                                                   block_sink*);

/// A quantizer on tiles, inside the Sinkhorn normalisation or without.
template <bool Balanced, quantizer Q>
[[nodiscard]] result<quantized_matrix> run_tiles(const weight_view& w, const quantize_options& o,
                                                 const matrix_format& format, const Q& q, block_sink* sink) {
  if constexpr (Balanced) {
    if (result<void> ok = check(o.sinkhorn); !ok) return ok.error();
    return quantize_tiles(w, format, "", sinkhorn_quantizer{o.chosen_sinkhorn(), q}, o.run, sink);
  } else {
    return quantize_tiles(w, format, "", q, o.run, sink);
  }
}

template <bool Balanced>
[[nodiscard]] result<quantized_matrix> quantize_rtn(const weight_view& w, const quantize_options& o,
                                                    const matrix_format& format, block_sink* sink) {
  if (o.chosen_refinement() == refine_mode::none) return run_tiles<Balanced>(w, o, format, o.rtn(), sink);
  if (result<void> ok = check(o.sinkhorn); Balanced && !ok) return ok.error();
  result<quantized_matrix> q =
      quantize_tiles(w, format, "", initial_scales<Balanced>{o.rtn(), o.chosen_sinkhorn()}, o.run);
  if (q) q->codes = {}; // refinement chooses them
  return q;
}

[[nodiscard]] inline result<quantized_matrix> quantize_sinq_noz(const weight_view& w, const quantize_options& o,
                                                                const matrix_format& format, block_sink* sink) {
  return run_tiles<true>(w, o, format, sinq::rtn{o.bits, {.group_size = o.group_size, .aux = o.aux, .noz = true}},
                         sink);
}

[[nodiscard]] inline result<quantized_matrix> quantize_hadamard_rtn(const weight_view& w, const quantize_options& o,
                                                                    const matrix_format& format, block_sink* sink) {
  return quantize_rotated(w, format, "", o.rtn(), o.run, sink);
}

template <bool Balanced, codebook (*Book)()>
[[nodiscard]] result<quantized_matrix> quantize_codebook(const weight_view& w, const quantize_options& o,
                                                         const matrix_format& format, block_sink* sink) {
  return run_tiles<Balanced>(w, o, format, codebook_quantizer{Book(), o.codebook()}, sink);
}

template <bool Balanced>
[[nodiscard]] result<quantized_matrix> quantize_custom(const weight_view& w, const quantize_options& o,
                                                       const matrix_format& format, block_sink* sink) {
  const result<codebook> book = codebook::make(o.levels);
  if (!book) return book.error();
  result<quantized_matrix> q = run_tiles<Balanced>(w, o, format, codebook_quantizer{*book, o.codebook()}, sink);
  if (q) q->custom_levels = book->levels;
  return q;
}

[[nodiscard]] inline result<quantized_matrix> quantize_hqq(const weight_view& w, const quantize_options& o,
                                                           const matrix_format& format, block_sink* sink) {
  result<quantized_matrix> q = hqq_quantizer{o.bits, o.hqq(hqq_rule::stop_when_worse)}(w, o.run, sink);
  if (q) q->format = format; // of the same parts
  return q;
}

[[nodiscard]] inline result<quantized_matrix> quantize_sinq_hqq(const weight_view& w, const quantize_options& o,
                                                                const matrix_format& format, block_sink* sink) {
  hqq_options inner = o.hqq(hqq_rule::keep_best);
  inner.solver.kappa = 1;
  return run_tiles<true>(w, o, format, hqq_quantizer{o.bits, inner}, sink);
}

template <bool Balanced, output_loss Loss>
[[nodiscard]] result<quantized_matrix> quantize_awq(const weight_view& w, const quantize_options& o,
                                                    const matrix_format& format, block_sink*) {
  awq_options options{.loss = Loss};
  if constexpr (Balanced) options.balance = o.chosen_sinkhorn();
  return awq_quantizer{o.rtn(), options}(w, format, *o.inputs, o.run);
}

} // namespace sinq::detail
