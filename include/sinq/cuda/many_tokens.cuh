#pragma once

#include "codes.cuh"
#include "outputs.cuh"

namespace sinq::cuda::kernels {

/// The block of outputs that a block of threads makes.
struct block_shape {
  unsigned tiles;  ///< of 16 rows, for each warp
  unsigned tokens; ///< tiles of 8 tokens, for all warps
};

/// Bytes of a unit in shared memory: activations of all tokens, then weights warp by warp.
[[nodiscard]] __host__ __device__ constexpr unsigned many_tokens_stage_bytes(const device_format& f, block_shape shape,
                                                                             unsigned warps) {
  return shape.tokens * activation_bytes(f) + warps * shape.tiles * f.record_bytes();
}
/// Shared memory of many_tokens.
[[nodiscard]] __host__ __device__ constexpr unsigned many_tokens_shared_bytes(const device_format& f, block_shape shape,
                                                                              unsigned warps, unsigned stages) {
  return (f.form == code_form::table4 ? table_bytes : 0) + stages * many_tokens_stage_bytes(f, shape, warps);
}

namespace detail {

/// Waits until no more than stages - 2 groups of copies are under way. @pre 2 <= stages <= 4
__device__ __forceinline__ void wait_for_stage(unsigned stages) {
  if (stages == 2)
    ptx::copy_async_wait<0>();
  else if (stages == 3)
    ptx::copy_async_wait<1>();
  else
    ptx::copy_async_wait<2>();
}

/// A warp's part of a block: Tiles tiles of rows times Tokens tiles of tokens.
template <code_form Form, class Float, unsigned Tiles, unsigned Tokens>
struct many_tokens_warp {
  const matmul_args& a;
  unsigned char* shared; ///< stages of the block
  const std::uint32_t* table;
  unsigned first_tile;       ///< of this warp's rows
  unsigned first_token_tile; ///< of the block
  float acc[Tiles][Tokens][4] = {};

  [[nodiscard]] __device__ __forceinline__ unsigned stage_bytes() const {
    return many_tokens_stage_bytes(a.format, {Tiles, Tokens}, blockDim.x / 32);
  }
  [[nodiscard]] __device__ __forceinline__ unsigned char* activations(unsigned slot) const {
    return shared + slot * stage_bytes();
  }
  [[nodiscard]] __device__ __forceinline__ unsigned char* weights(unsigned slot) const {
    return activations(slot) + Tokens * activation_bytes(a.format) +
           threadIdx.x / 32 * Tiles * a.format.record_bytes();
  }

  __device__ __forceinline__ void copy_weights(unsigned unit, unsigned slot) const {
    const unsigned bytes = a.format.record_bytes();
    SINQ_UNROLL
    for (unsigned k = 0; k < Tiles; ++k) {
      const bool in = first_tile + k < a.format.tiles();
      const unsigned char* const from =
          a.weights + (std::size_t{in ? first_tile + k : 0} * a.format.units() + unit) * bytes;
      unsigned char* const to = weights(slot) + k * bytes;
      for (unsigned at = threadIdx.x % 32 * 16; at < bytes; at += 512) ptx::copy_async16(to + at, from + at, in);
    }
  }

  __device__ __forceinline__ void copy_activations(unsigned unit, unsigned slot) const {
    const unsigned bytes = activation_bytes(a.format), tiles = a.token_tiles();
    const unsigned char* const from = a.activations + (std::size_t{unit} * tiles + first_token_tile) * bytes;
    SINQ_UNROLL
    for (unsigned k = 0; k < Tokens; ++k) {
      const bool in = first_token_tile + k < tiles;
      for (unsigned at = threadIdx.x * 16; at < bytes; at += blockDim.x * 16)
        ptx::copy_async16(activations(slot) + k * bytes + at, from + (in ? k : 0) * bytes + at, in);
    }
  }

  __device__ __forceinline__ void multiply(unsigned slot) {
    const unsigned lane = threadIdx.x % 32, bytes = activation_bytes(a.format);
    const unsigned char* const x = activations(slot);
    const unsigned char* const w = weights(slot);
    lane_codes<Form> codes[Tiles];
    float d[Tiles][Tokens][4] = {};
    SINQ_UNROLL
    for (unsigned k = 0; k < Tiles; ++k) codes[k].load(w + k * a.format.record_bytes(), lane);
    SINQ_UNROLL
    for (unsigned q = 0; q < 4; ++q) {
      std::uint32_t pairs[2][Tiles][4];
      SINQ_UNROLL
      for (unsigned half = 0; half < 2; ++half)
        SINQ_UNROLL
        for (unsigned k = 0; k < Tiles; ++k)
          SINQ_UNROLL
          for (unsigned i = 0; i < 4; ++i)
            pairs[half][k][i] = codes[k].pair(Float{}, table, q / 2, i % 2, 4 * (q % 2) + 2 * half + i / 2);
      SINQ_UNROLL
      for (unsigned n = 0; n < Tokens; ++n) {
        const uint4 b = *reinterpret_cast<const uint4*>(x + n * bytes + (q * 32 + lane) * 16);
        SINQ_UNROLL
        for (unsigned k = 0; k < Tiles; ++k) {
          ptx::mma_m16n8k16(Float{}, d[k][n], pairs[0][k], b.x, b.y, d[k][n]);
          ptx::mma_m16n8k16(Float{}, d[k][n], pairs[1][k], b.z, b.w, d[k][n]);
        }
      }
      const unsigned groups = a.format.unit_groups();
      if ((q + 1) * groups % 4 == 0) add_group(w, x, q * groups / 4, d);
    }
  }

  /// acc += s unit (d - z sum), and d = 0
  __device__ __forceinline__ void add_group(const unsigned char* w, const unsigned char* x, unsigned group,
                                            float (&d)[Tiles][Tokens][4]) {
    const unsigned lane = threadIdx.x % 32, bytes = activation_bytes(a.format);
    const float unit = reinterpret_cast<const float*>(x + activation_unit_place(a.format))[group];
    row_pair_aux aux[Tiles];
    SINQ_UNROLL
    for (unsigned k = 0; k < Tiles; ++k) {
      aux[k].load(a.format, w + k * a.format.record_bytes(), lane / 4, group);
      aux[k].scale[0] *= unit;
      aux[k].scale[1] *= unit;
    }
    SINQ_UNROLL
    for (unsigned n = 0; n < Tokens; ++n) {
      const float2 sum = reinterpret_cast<const float2*>(x + n * bytes +
                                                         activation_sum_place)[(group * token_tile) / 2 + lane % 4];
      SINQ_UNROLL
      for (unsigned k = 0; k < Tiles; ++k)
        SINQ_UNROLL
        for (unsigned i = 0; i < 4; ++i) {
          acc[k][n][i] += aux[k].scale[i / 2] * (d[k][n][i] - aux[k].zero[i / 2] * (i % 2 == 0 ? sum.x : sum.y));
          d[k][n][i] = 0;
        }
    }
  }

  /// @param begin, end  units of the block
  __device__ __forceinline__ void run(unsigned begin, unsigned end) {
    const unsigned ahead = a.stages - 1;
    for (unsigned slot = 0; slot < ahead; ++slot)
      if (begin + slot < end) copy_weights(begin + slot, slot);
    ptx::wait_for_previous_kernels();
    for (unsigned slot = 0; slot < ahead; ++slot) {
      if (begin + slot < end) copy_activations(begin + slot, slot);
      ptx::copy_async_commit();
    }
    unsigned slot = 0, next = ahead;
    for (unsigned unit = begin; unit < end; ++unit) {
      wait_for_stage(a.stages);
      __syncthreads(); // all have their copies, and are done with the unit before
      if (unit + ahead < end) {
        copy_weights(unit + ahead, next);
        copy_activations(unit + ahead, next);
      }
      ptx::copy_async_commit();
      multiply(slot);
      slot = slot + 1 == a.stages ? 0 : slot + 1;
      next = next + 1 == a.stages ? 0 : next + 1;
    }
  }

  __device__ __forceinline__ void write(unsigned split) const {
    const unsigned lane = threadIdx.x % 32;
    SINQ_UNROLL
    for (unsigned k = 0; k < Tiles; ++k)
      SINQ_UNROLL
      for (unsigned n = 0; n < Tokens; ++n)
        SINQ_UNROLL
        for (unsigned i = 0; i < 4; ++i)
          write_sum(a, split, (first_tile + k) * tile_rows + lane / 4 + 8 * (i / 2),
                    (first_token_tile + n) * token_tile + 2 * (lane % 4) + i % 2, acc[k][n][i]);
  }
};

} // namespace detail

/// y = x W^T + bias for many tokens, on the tensor cores; the equation and the numerics are those of few_tokens.
/// A block has 16 Tiles rows for each of its warps and 8 Tokens tokens for all of them; activations are copied once for
/// the block, weights are turned into fragments in registers, by the warp that owns their rows.
/// Grid (tiles / (Tiles warps), token tiles / Tokens, splits), many_tokens_shared_bytes.
template <code_form Form, class Float, unsigned Tiles, unsigned Tokens>
__global__ void __launch_bounds__(256) many_tokens(matmul_args a) {
  SINQ_DYNAMIC_SHARED(unsigned char, shared);
  const unsigned warp = threadIdx.x / 32, warps = blockDim.x / 32;
  std::uint32_t* const table = reinterpret_cast<std::uint32_t*>(shared);
  unsigned char* stages = shared;
  if constexpr (Form == code_form::table4) {
    fill_table(Float{}, table, a.levels);
    stages += table_bytes; // the barrier before the first unit is enough
  }
  detail::many_tokens_warp<Form, Float, Tiles, Tokens> by{
      a, stages, table + threadIdx.x % 32, (blockIdx.x * warps + warp) * Tiles, blockIdx.y * Tokens};
  by.run(a.split_begin(blockIdx.z), a.split_begin(blockIdx.z + 1));
  by.write(blockIdx.z);
}

} // namespace sinq::cuda::kernels
