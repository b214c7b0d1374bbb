#pragma once

#include "outputs.cuh"

namespace sinq::cuda::kernels {

/// What dequantize reads and writes.
struct dequantize_args {
  device_format format;
  const unsigned char* weights;
  const float* levels; ///< [16] of table4
  const float* t;      ///< [units * 128]
  const float* unit;   ///< [groups]
  void* to;            ///< [rows x cols] of `type`
  std::size_t stride;  ///< elements from one row to the next
  bool aligned;        ///< every eight columns of `to` begin on 16 bytes
};

namespace detail {

/// Both codes of pair n of row r, as floats: the codes themselves, or their levels.
template <code_form Form>
__device__ __forceinline__ float2 exact_pair(const lane_codes<Form>& codes, const float* levels, unsigned r,
                                             unsigned n) {
  if constexpr (Form == code_form::table4) {
    const std::uint32_t both = codes.word[r * 2 + n / 4] >> (8 * (n % 4));
    return make_float2(levels[both & 15u], levels[both >> 4 & 15u]);
  } else {
    const float2 pair = ptx::to_floats(f16{}, codes.pair(f16{}, nullptr, r, n));
    constexpr float by = 1 / pair_scale<Form, f16>;
    return make_float2(pair.x * by, pair.y * by);
  }
}

/// Eight neighbouring weights.
template <output_type Out>
__device__ __forceinline__ void store_eight(const dequantize_args& a, unsigned row, unsigned column,
                                            const float (&w)[8]) {
  if (row >= a.format.rows || column >= a.format.cols) return;
  const std::size_t at = row * a.stride + column;
  const unsigned count = a.format.cols - column < 8 ? a.format.cols - column : 8;
  if constexpr (Out == output_type::f32) {
    float* const to = static_cast<float*>(a.to) + at;
    if (a.aligned && count == 8) {
      reinterpret_cast<float4*>(to)[0] = make_float4(w[0], w[1], w[2], w[3]);
      reinterpret_cast<float4*>(to)[1] = make_float4(w[4], w[5], w[6], w[7]);
      return;
    }
    SINQ_EACH (k, 8)
      if (k < count) to[k] = w[k];
  } else {
    using type = std::conditional_t<Out == output_type::f16, f16, bf16>;
    std::uint16_t* const to = static_cast<std::uint16_t*>(a.to) + at;
    if (a.aligned && count == 8) {
      *reinterpret_cast<uint4*>(to) =
          make_uint4(ptx::from_floats(type{}, w[0], w[1]), ptx::from_floats(type{}, w[2], w[3]),
                     ptx::from_floats(type{}, w[4], w[5]), ptx::from_floats(type{}, w[6], w[7]));
      return;
    }
    SINQ_EACH (k, 8)
      if (k < count) to[k] = ptx::from_float(type{}, w[k]);
  }
}

} // namespace detail

/// V[i][j] = (s (level - z)) t, in f32, rounded after each operation as the CPU does it: bytes of f32 are the same as
/// those of sinq::dequantize where scales and zero points are stored in f16; 16-bit floats are these, rounded.
/// Grid (units / 4, tiles), 128 threads: each warp has one unit.
template <code_form Form, output_type Out>
__global__ void __launch_bounds__(128) dequantize(dequantize_args a) {
  const unsigned lane = threadIdx.x % 32, unit = blockIdx.x * 4 + threadIdx.x / 32;
  if (unit >= a.format.units()) return;
  const unsigned char* const record =
      a.weights + (std::size_t{blockIdx.y} * a.format.units() + unit) * a.format.record_bytes();
  lane_codes<Form> codes;
  SINQ_EACH (q, 4) {
    if (q % 2 == 0) codes.load(record, lane, q / 2);
    const unsigned group = q * a.format.unit_groups() / 4, column = unit * unit_cols + 32 * q + 8 * (lane % 4);
    const float by = a.unit[unit * a.format.unit_groups() + group];
    const float4 t0 = reinterpret_cast<const float4*>(a.t + column)[0];
    const float4 t1 = reinterpret_cast<const float4*>(a.t + column)[1];
    const float t[8] = {t0.x, t0.y, t0.z, t0.w, t1.x, t1.y, t1.z, t1.w};
    const row_pair_aux<code_form::table4, f16> aux{
        record + a.format.code_bytes() + (lane / 4 * a.format.unit_groups() + group) * 8, 1.0f};
    SINQ_EACH (r, 2) {
      float w[8];
      SINQ_EACH (i, 4) {
        const float2 level = detail::exact_pair<Form>(codes, a.levels, r, 4 * (q % 2) + i);
        w[2 * i] = __fmul_rn(__fmul_rn(aux.scale[r], __fsub_rn(level.x, aux.zero[r])), t[2 * i] * by);
        w[2 * i + 1] = __fmul_rn(__fmul_rn(aux.scale[r], __fsub_rn(level.y, aux.zero[r])), t[2 * i + 1] * by);
      }
      detail::store_eight<Out>(a, blockIdx.y * tile_rows + lane / 4 + 8 * r, column, w);
    }
  }
}

} // namespace sinq::cuda::kernels
