#pragma once

#include "balance.cuh"
#include "codes.cuh"

namespace sinq::cuda::kernels {

namespace detail {

/// Codes of a group, and what is stored of its scale and zero point.
struct coded_group {
  float scale = 0, zero = 0;
  unsigned code[group_weights::parts] = {};
};

/// Moves a group to the coarser step least_scale, as pack does with a scale that f16 cannot hold at full precision.
/// @param ratio  of the old step to the new one
__device__ __forceinline__ void coarsen(const fit_rule& by, unsigned cols, float ratio, coded_group& group) {
  const unsigned lane = threadIdx.x % 32;
  if (by.codebook) {
    SINQ_EACH (k, group_weights::parts) {
      const float place =
          rounded::add(rounded::mul(rounded::sub(by.levels[group.code[k]], group.zero), ratio), group.zero);
      unsigned nearest = 0;
      for (unsigned n = 1; n < 16; ++n)
        if (fabsf(by.levels[n] - place) < fabsf(by.levels[nearest] - place)) nearest = n;
      group.code[k] = nearest;
    }
    return;
  }
  unsigned smallest = ~0u;
  SINQ_EACH (k, group_weights::parts)
    if (lane + 32 * k < cols) smallest = rounded::smaller(smallest, group.code[k]);
  SINQ_UNROLL
  for (int flipped = 16; flipped > 0; flipped /= 2)
    smallest = rounded::smaller(smallest, __shfl_xor_sync(ptx::all_lanes, smallest, flipped));
  const auto position = [&](unsigned code) {
    return rounded::mul(rounded::sub(static_cast<float>(code), group.zero), ratio);
  };
  const float zero = by.symmetric ? by.top * 0.5f : rintf(-position(smallest));
  SINQ_EACH (k, group_weights::parts)
    group.code[k] = __float2uint_rn(rounded::clamp(rounded::add(position(group.code[k]), zero), 0.0f, by.top));
  group.zero = zero;
}

/// Codes of row i of tile g, by a warp.
[[nodiscard]] __device__ __forceinline__ coded_group code_group(const quantize_args& a, unsigned tile, unsigned i) {
  const unsigned lane = threadIdx.x % 32, cols = a.tile_cols(tile);
  const std::size_t at = std::size_t{tile} * a.format.rows + i;
  const float step = a.group_scale[at];
  const int shift = a.shift[tile];
  const bool in_lanes = a.in_lanes(tile);
  group_weights x;
  x.load(a, tile, i, [&](unsigned j) { return a.col_factor[tile * a.format.group_size + j]; });
  x.multiply(a.row_factor[at]);
  coded_group group;
  group.zero = a.group_zero[at];
  bool zeros = true;
  const rounded::divisor by_step{step == 0 ? 1.0f : step};
  SINQ_EACH (k, group_weights::parts) {
    zeros = zeros && x.value[k] == 0;
    if (lane + 32 * k >= cols) continue;
    const float place =
        in_lanes ? by_step.add_near(x.value[k], group.zero) : rounded::add(by_step(x.value[k]), group.zero);
    group.code[k] = step == 0 ? a.fit.at_zero : code_at(a.fit, place);
  }
  zeros = __all_sync(ptx::all_lanes, zeros) != 0;
  const float scale = ldexpf(rounded::mul(step, a.row_scale[at]), -shift);
  group.scale = rounded::smaller(scale, most_scale);
  if (scale == 0 || scale >= least_scale || zeros) return group;
  group.scale = least_scale;
  coarsen(a.fit, cols, rounded::div(scale, least_scale), group);
  return group;
}

} // namespace detail

/// Writes codes, scales and zero points of balanced weights as records of device_format.
/// Grid (units / 4, tiles of 16 rows), 128 threads: each warp has one record.
template <code_form Form>
__global__ void __launch_bounds__(128, 4) write_codes(quantize_args a) {
  constexpr unsigned row_bytes = unit_cols + 8; // eight rows apart, lanes want different banks
  SINQ_SHARED(unsigned char, shared, 4 * tile_rows * row_bytes);
  const unsigned lane = threadIdx.x % 32, unit = blockIdx.x * 4 + threadIdx.x / 32;
  if (unit >= a.format.units()) return;
  unsigned char* const codes = shared + threadIdx.x / 32 * tile_rows * row_bytes;
  unsigned char* const record =
      a.weights + (std::size_t{blockIdx.y} * a.format.units() + unit) * a.format.record_bytes();
  for (unsigned r = 0; r < tile_rows; ++r)
    for (unsigned group = 0; group < a.format.unit_groups(); ++group) {
      const unsigned i = blockIdx.y * tile_rows + r, tile = unit * a.format.unit_groups() + group;
      detail::coded_group coded;
      if (i < a.format.rows && tile * a.format.group_size < a.format.cols) coded = detail::code_group(a, tile, i);
      SINQ_EACH (k, detail::group_weights::parts)
        if (lane + 32 * k < a.format.group_size)
          codes[r * row_bytes + group * a.format.group_size + lane + 32 * k] =
              static_cast<unsigned char>(coded.code[k]);
      if (lane == 0)
        *reinterpret_cast<std::uint32_t*>(record + aux_place(a.format, r, group)) =
            ptx::from_floats(f16{}, coded.scale, coded.zero);
    }
  __syncwarp();
  SINQ_EACH (b, 2) {
    lane_codes<Form> words{};
    SINQ_EACH (part, 4) {
      const unsigned h = part / 2, r = part % 2;
      const uint2 eight =
          *reinterpret_cast<const uint2*>(codes + (lane / 4 + 8 * r) * row_bytes + 64 * b + 32 * h + lane % 4 * 8);
      SINQ_EACH (k, 8) words.put(r, 4 * h + k / 2, k % 2, (k < 4 ? eight.x : eight.y) >> (8 * (k % 4)) & 0xffu);
    }
    words.store(record, lane, b);
  }
}

} // namespace sinq::cuda::kernels
