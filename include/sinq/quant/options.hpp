#pragma once

#include "../core/parallel.hpp"
#include "../math/input_moments.hpp"
#include "../math/sinkhorn.hpp"
#include "codebook.hpp"
#include "hqq.hpp"
#include "refine_options.hpp"
#include "rtn.hpp"

#include <cstdint>
#include <optional>

namespace sinq {

/// The quantizers behind `quantize`; `method_table` has their names.
enum class method : std::uint8_t {
  rtn,           ///< round to nearest
  sinq,          ///< Sinkhorn normalisation, then round to nearest
  nf4,           ///< NormalFloat4
  nf3,           ///< NormalFloat3
  codebook,      ///< any levels
  hqq,           ///< half-quadratic quantization
  hadamard_rtn,  ///< Walsh-Hadamard rotation, then round to nearest
  sinq_nf4,      ///< Sinkhorn normalisation, then NormalFloat4
  sinq_nf3,      ///< Sinkhorn normalisation, then NormalFloat3
  sinq_codebook, ///< Sinkhorn normalisation, then any levels
  sinq_hqq,      ///< Sinkhorn normalisation, then half-quadratic quantization of each tile
  sinq_noz,      ///< Sinkhorn normalisation, then the reference's symmetric grid
  awq,           ///< activation-aware column factors, then round to nearest
  asinq,         ///< Sinkhorn normalisation, then AWQ
  asinq_l1,      ///< the same with the mean absolute error of the outputs
  gptq,          ///< round to nearest with error feedback
  sinq_gptq,     ///< Sinkhorn normalisation, then round to nearest with error feedback
  hadamard_gptq, ///< Walsh-Hadamard rotation, then round to nearest with error feedback
};

/// Whose results are wanted where ours are better.
enum class compat : std::uint8_t {
  none,     ///< ours
  official, ///< those of the official package's own door, quirks and all: see quant/official.hpp
};

/// Everything that `quantize` can be told.
struct quantize_options {
  sinq::method method = sinq::method::sinq;
  int bits = 4;
  std::size_t group_size = 64;
  std::size_t tile_rows = 0;      ///< rows that share a t: 0 for all of them, group_size for square tiles
  aux_dtype aux = aux_dtype::f16; ///< storage of scales and zero points, or of their second level
  int scale_bits = 0;             ///< quantizes scales to 4, 5, 6 or 8 bits; 0: stored as aux
  int zero_bits = 0;              ///< the same for zero points
  std::size_t super_group = 0;    ///< groups that share a second-level scale; 0: all of a row, or about 64
  std::optional<dtype>
      col_scale{}; ///< storage of t: F16, BF16, F32 or F8_E4M3; without it, as aux, or F8_E4M3 beside scale_bits
  bool symmetric = false;
  zero_mode zero = zero_mode::rounded;
  sinkhorn_options sinkhorn{};                 ///< without a rule, what chosen_sinkhorn says
  std::span<const float> levels{};             ///< [2^bits] of codebook methods, borrowed; see codebook::make
  codebook_shift shift = codebook_shift::mean; ///< of codebook methods; none if symmetric
  hqq_solver solver{};                         ///< of hqq methods
  const input_moments* inputs = nullptr; ///< what is known of the layer's inputs, borrowed; methods say what they need
  std::optional<refine_mode> refine{};   ///< without it, `weights` or `inputs` for `sinq` and `none` for other methods
  refine_options refinement{};
  bool refinement_feedback = true; ///< refinement with inputs ends with error feedback if their hessian is there
  feedback_options feedback{};
  sinq::compat compat = sinq::compat::none;
  bool quant_aux = false; ///< with compat::official: 8-bit scales and zero points, as its `sinq_quantAux`
  run_options run{};

  /// The refinement that is done.
  [[nodiscard]] refine_mode chosen_refinement() const {
    if (refine) return *refine;
    if (compat != sinq::compat::none) return refine_mode::none;
    if (method != sinq::method::sinq) return refine_mode::none;
    return inputs != nullptr ? refine_mode::inputs : refine_mode::weights;
  }
  /// The normalisation that is done. The reference's rule where constants were fitted to its scales: refinement guesses
  /// energies by a power of t, and what HQQ shrinks depends on the size of what it is given.
  [[nodiscard]] sinkhorn_options chosen_sinkhorn() const {
    const bool fitted = chosen_refinement() != refine_mode::none || method == sinq::method::sinq_hqq;
    sinkhorn_options chosen = sinkhorn;
    chosen.rule = sinkhorn.rule.value_or(fitted ? sinkhorn_rule::reference : sinkhorn_rule::alternating);
    return chosen;
  }
  /// The quantizer inside most methods. @pre is_supported_bits(bits)
  [[nodiscard]] sinq::rtn rtn() const {
    return sinq::rtn{bits, {.group_size = group_size, .symmetric = symmetric, .zero = zero, .aux = aux}};
  }
  /// The options of a codebook quantizer.
  [[nodiscard]] codebook_options codebook() const {
    return {.group_size = group_size, .shift = symmetric ? codebook_shift::none : shift, .aux = aux};
  }
  /// The options of HQQ.
  [[nodiscard]] hqq_options hqq(hqq_rule rule) const {
    return {.group_size = group_size, .solver = solver, .rule = rule, .aux = aux};
  }
  /// Format of a result of that shape, before scales and zero points are quantized.
  [[nodiscard]] matrix_format format(std::size_t rows, std::size_t cols, bool has_col_scale) const {
    return {.rows = rows,
            .cols = cols,
            .bits = bits,
            .group_size = group_size,
            .tile_rows = tile_rows,
            .aux = aux,
            .has_zero = !symmetric,
            .has_col_scale = has_col_scale,
            .col_scale_type = col_scale.value_or(scale_bits != 0 ? dtype::f8_e4m3 : storage(aux))};
  }
};

} // namespace sinq
