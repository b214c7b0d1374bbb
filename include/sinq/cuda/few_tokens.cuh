#pragma once

#include "codes.cuh"
#include "outputs.cuh"

namespace sinq::cuda::kernels {

/// Units that a warp has in flight.
inline constexpr unsigned few_tokens_stages = 4;

/// Shared memory of few_tokens.
template <code_form Form, unsigned Tiles>
[[nodiscard]] __host__ __device__ constexpr unsigned few_tokens_shared_bytes(const device_format& f, unsigned warps) {
  const unsigned stage = Tiles * f.record_bytes() + activation_bytes(f);
  return (Form == code_form::table4 ? table_bytes : 0) + warps * few_tokens_stages * stage;
}

namespace detail {

/// A warp's way through its units: copies them to shared memory ahead of their use and multiplies them.
template <code_form Form, class Float, unsigned Tiles>
struct few_tokens_warp {
  const matmul_args& a;
  unsigned char* stages; ///< of this warp
  const std::uint32_t* table;
  unsigned tile, lane;
  float acc[Tiles][4] = {};

  [[nodiscard]] __device__ __forceinline__ unsigned char* stage(unsigned slot) const {
    return stages + slot * (Tiles * a.format.record_bytes() + activation_bytes(a.format));
  }

  __device__ __forceinline__ void copy_weights(unsigned unit, unsigned slot) const {
    const unsigned bytes = a.format.record_bytes();
    SINQ_UNROLL
    for (unsigned k = 0; k < Tiles; ++k) {
      const bool in = tile + k < a.format.tiles();
      const unsigned char* const from =
          a.weights + (std::size_t{in ? tile + k : 0} * a.format.units() + unit) * bytes;
      unsigned char* const to = stage(slot) + k * bytes;
      for (unsigned at = lane * 16; at < bytes; at += 512) ptx::copy_async16(to + at, from + at, in);
    }
  }

  /// Only the tokens that are there are read.
  __device__ __forceinline__ void copy_activations(unsigned unit, unsigned slot) const {
    const unsigned bytes = activation_bytes(a.format);
    const unsigned char* const from = a.activations + std::size_t{unit} * bytes;
    unsigned char* const to = stage(slot) + Tiles * a.format.record_bytes();
    SINQ_UNROLL
    for (unsigned k = 0; k < 4; ++k) {
      const unsigned at = (k * 32 + lane) * 16;
      ptx::copy_async16(to + at, from + at, lane / 4 < a.tokens);
    }
    const unsigned at = activation_sum_place + lane * 16;
    if (at < bytes) ptx::copy_async16(to + at, from + at);
  }

  __device__ __forceinline__ void multiply(unsigned slot) {
    const unsigned bytes = a.format.record_bytes();
    const unsigned char* const weights = stage(slot);
    const unsigned char* const x = weights + Tiles * bytes;
    lane_codes<Form> codes[Tiles];
    float d[Tiles][4] = {};
    SINQ_UNROLL
    for (unsigned k = 0; k < Tiles; ++k) codes[k].load(weights + k * bytes, lane);
    SINQ_UNROLL
    for (unsigned q = 0; q < 4; ++q) {
      const uint4 b = reinterpret_cast<const uint4*>(x)[q * 32 + lane];
      SINQ_UNROLL
      for (unsigned half = 0; half < 2; ++half)
        SINQ_UNROLL
        for (unsigned k = 0; k < Tiles; ++k) {
          const unsigned n = 4 * (q % 2) + 2 * half;
          const std::uint32_t w[4] = {codes[k].pair(Float{}, table, q / 2, 0, n),
                                      codes[k].pair(Float{}, table, q / 2, 1, n),
                                      codes[k].pair(Float{}, table, q / 2, 0, n + 1),
                                      codes[k].pair(Float{}, table, q / 2, 1, n + 1)};
          ptx::mma_m16n8k16(Float{}, d[k], w, half == 0 ? b.x : b.z, half == 0 ? b.y : b.w, d[k]);
        }
      const unsigned groups = a.format.unit_groups();
      if ((q + 1) * groups % 4 == 0) add_group(weights, x, q * groups / 4, d);
    }
  }

  /// acc += s unit (d - z sum), and d = 0
  __device__ __forceinline__ void add_group(const unsigned char* weights, const unsigned char* x, unsigned group,
                                            float (&d)[Tiles][4]) {
    const float unit = reinterpret_cast<const float*>(x + activation_unit_place(a.format))[group];
    const float2 sum =
        reinterpret_cast<const float2*>(x + activation_sum_place)[(group * token_tile) / 2 + lane % 4];
    SINQ_UNROLL
    for (unsigned k = 0; k < Tiles; ++k) {
      row_pair_aux aux;
      aux.load(a.format, weights + k * a.format.record_bytes(), lane / 4, group);
      SINQ_UNROLL
      for (unsigned r = 0; r < 2; ++r) {
        const float scale = aux.scale[r] * unit;
        acc[k][2 * r] += scale * (d[k][2 * r] - aux.zero[r] * sum.x);
        acc[k][2 * r + 1] += scale * (d[k][2 * r + 1] - aux.zero[r] * sum.y);
        d[k][2 * r] = 0;
        d[k][2 * r + 1] = 0;
      }
    }
  }

  /// @param begin, end  units of the block; this warp takes every `warps`-th of them
  __device__ __forceinline__ void run(unsigned begin, unsigned end, unsigned warps) {
    SINQ_UNROLL
    for (unsigned slot = 0; slot < few_tokens_stages; ++slot)
      if (begin + slot * warps < end) copy_weights(begin + slot * warps, slot);
    ptx::wait_for_previous_kernels();
    SINQ_UNROLL
    for (unsigned slot = 0; slot < few_tokens_stages; ++slot) {
      if (begin + slot * warps < end) copy_activations(begin + slot * warps, slot);
      ptx::copy_async_commit();
    }
    unsigned slot = 0;
    for (unsigned unit = begin; unit < end; unit += warps) {
      ptx::copy_async_wait<few_tokens_stages - 1>();
      __syncwarp();
      multiply(slot);
      __syncwarp();
      if (const unsigned next = unit + few_tokens_stages * warps; next < end) {
        copy_weights(next, slot);
        copy_activations(next, slot);
      }
      ptx::copy_async_commit();
      slot = (slot + 1) % few_tokens_stages;
    }
    ptx::copy_async_wait<0>();
  }
};

} // namespace detail

/// y = x W^T + bias for 1 to 8 tokens, on the tensor cores, codes being exact in 16 bits and everything else in f32:
///   y[m][i] = sum_g s[i][g] unit[g] (sum_{j in g} level[i][j] x'[m][j] - z[i][g] sum[m][g]) + bias[i]
/// A block has Tiles tiles of 16 rows; its warps take turns at the units of its part, and their sums are added in their
/// order. Grid (tiles / Tiles, splits), a multiple of 32 threads, few_tokens_shared_bytes.
template <code_form Form, class Float, unsigned Tiles>
__global__ void __launch_bounds__(256) few_tokens(matmul_args a) {
  SINQ_DYNAMIC_SHARED(unsigned char, shared);
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  std::uint32_t* const table = reinterpret_cast<std::uint32_t*>(shared);
  unsigned char* stages = shared;
  if constexpr (Form == code_form::table4) {
    fill_table(Float{}, table, a.levels);
    stages += table_bytes;
    __syncthreads();
  }
  detail::few_tokens_warp<Form, Float, Tiles> by{a, nullptr, table + lane, blockIdx.x * Tiles, lane};
  by.stages = stages + warp * few_tokens_stages * (Tiles * a.format.record_bytes() + activation_bytes(a.format));
  by.run(a.split_begin(blockIdx.y) + warp, a.split_begin(blockIdx.y + 1), warps);
  __syncthreads();
  constexpr unsigned rows = Tiles * tile_rows, outputs = rows * token_tile;
  float* const sums = reinterpret_cast<float*>(stages); // [warp][token][row]
  SINQ_UNROLL
  for (unsigned k = 0; k < Tiles; ++k)
    SINQ_UNROLL
    for (unsigned i = 0; i < 4; ++i)
      sums[warp * outputs + (2 * (lane % 4) + i % 2) * rows + k * tile_rows + lane / 4 + 8 * (i / 2)] = by.acc[k][i];
  __syncthreads();
  for (unsigned n = threadIdx.x; n < outputs; n += blockDim.x) {
    float sum = 0;
    for (unsigned w = 0; w < warps; ++w) sum += sums[w * outputs + n];
    write_sum(a, blockIdx.y, blockIdx.x * rows + n % rows, n / rows, sum);
  }
}

} // namespace sinq::cuda::kernels
