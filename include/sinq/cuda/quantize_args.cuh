#pragma once

#include "../math/sinkhorn_options.hpp"
#include "layout.hpp"
#include "outputs.cuh"
#include "rounded.cuh"

namespace sinq::cuda::kernels {

/// How scale and zero point of a group are chosen: as sinq::rtn, or as sinq::codebook_quantizer.
struct fit_rule {
  bool codebook = false;
  bool symmetric = false;  ///< no zero point of its own
  bool rounded = true;     ///< zero points are whole numbers
  float top = 15;          ///< the largest code
  float levels[16] = {};   ///< of a codebook; the table of what is written
  float borders[15] = {};  ///< between them
  float bottom_level = -1; ///< the first and the last
  float top_level = 1;
  float reach = 1;      ///< the largest magnitude of a level
  unsigned at_zero = 0; ///< the code of the level nearest to 0
};

/// How row scales and t are found; of what follows `alternating`, the reference's rule alone has bounds.
struct balance_rule {
  int iterations = 0; ///< 0: row scales and t are 1
  bool balance = true;
  bool alternating = true;
  bool stop_when_worse = true;
  bool any_magnitude = true;
  float sigma_min, sigma_max, target_margin;
  float ratio_min, ratio_max;
  float scale_min, scale_max;
};

/// What the kernels of quantize read and write. A tile is a group of columns of all rows; it has index g.
struct quantize_args {
  device_format format;
  const void* w;      ///< [rows x cols] of `type`
  std::size_t stride; ///< elements from one row to the next
  output_type type;
  fit_rule fit;
  balance_rule balance;
  // of a tile g, at g * rows
  float* row_value; ///< scales of the rows while they are found
  float* row_std;
  float* row_factor;  ///< reciprocals of row_value, then of row_scale
  float* row_scale;   ///< the best so far
  float* group_scale; ///< of the balanced weights
  float* group_zero;
  std::uint64_t* bad; ///< [groups] row-major place of the first weight that is not finite, or all ones
  float* col_factor;  ///< [groups * group_size] 1 / t
  float* largest;     ///< [groups] magnitude of a weight
  int* shift;         ///< [groups] power of two that moves from the scales into t
  // results
  float* t;               ///< [units * 128]
  float* unit;            ///< [groups]
  unsigned char* weights; ///< records of device_format

  /// Columns of tile g.
  [[nodiscard]] __host__ __device__ unsigned tile_cols(unsigned g) const {
    const unsigned left = format.cols - g * format.group_size;
    return left < format.group_size ? left : format.group_size;
  }
  /// Whether the CPU finds means and codes of tile g by the loops of quant/lane_codes.hpp, not by those for rows.
  [[nodiscard]] __device__ __forceinline__ bool in_lanes(unsigned g) const {
    return balance.balance && largest[g] < 0x1p120f;
  }
  [[nodiscard]] __device__ __forceinline__ float at(std::size_t i, std::size_t j) const {
    const std::size_t n = i * stride + j;
    if (type == output_type::f32) return static_cast<const float*>(w)[n];
    const std::uint16_t bits = static_cast<const std::uint16_t*>(w)[n];
    return type == output_type::f16 ? ptx::to_float(f16{}, bits) : ptx::to_float(bf16{}, bits);
  }
};

/// Scales of f16 that keep all bits, and the largest power of two.
inline constexpr float least_scale = 0x1p-14f, most_scale = 0x1p15f;
/// The largest zero point whose neighbours a step away f16 still tells apart.
inline constexpr float most_zero = 0x1p11f;

} // namespace sinq::cuda::kernels
