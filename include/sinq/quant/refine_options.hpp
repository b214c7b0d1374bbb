#pragma once

#include <cstddef>
#include <cstdint>

namespace sinq {

/// How scale and zero point of a group are searched.
struct fit_options {
  int candidates = 12;      ///< ranges that are tried, >= 1: the whole one, then narrower ones
  int patience = 2;         ///< .. until so many in a row were no better than the best
  float narrowing = 0.035f; ///< how much of the whole range each gives up
  int shifts = 2;           ///< then either end of the best is moved in and out by 1 .. shifts such steps
  int iterations = 4;       ///< steps of alternating least squares from the best of them
};

/// What refinement knows of the inputs that a weight meets.
enum class refine_mode : std::uint8_t {
  none,    ///< codes, scales and zero points stay as the method made them
  weights, ///< nothing: energies are guessed from t, E[x_j^2] ~ t_j^-power
  inputs,  ///< the energies E[x_j^2] of quantize_options::inputs, and error feedback if their hessian is there
};

/// Options of refinement.
struct refine_options {
  fit_options fit{};
  double col_scale_power = 5;     ///< of the guess from t; 0 minimises the plain error, 2 that of the normalised matrix
  double col_scale_stretch = 0.2; ///< where energies are guessed, t is raised to the power of 1 and this
};

/// Options of error feedback; the defaults are those of the paper's GPTQ.
struct feedback_options {
  double damping = 0.01;   ///< of the mean of the hessian's diagonal, added to the diagonal, > 0
  bool act_order = true;   ///< columns in the order of falling energy; false: from left to right
  std::size_t block = 128; ///< columns whose corrections are carried one by one, >= 1
};

} // namespace sinq
