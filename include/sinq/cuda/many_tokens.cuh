#pragma once

#include "copies.cuh"

namespace sinq::cuda::kernels {

/// The outputs of a block of threads: its warps lie row_warps by token_warps.
struct block_shape {
  unsigned tiles;       ///< of 16 rows, for each warp
  unsigned tokens;      ///< tiles of 8 tokens, for each warp
  unsigned token_warps; ///< side by side
};

/// Bytes of a unit in shared memory: activations of all tokens, then weights of all rows.
[[nodiscard]] __host__ __device__ constexpr std::size_t many_tokens_stage_bytes(const device_format& f,
                                                                                block_shape shape, unsigned row_warps) {
  return shape.token_warps * shape.tokens * activation_bytes(f) + row_warps * shape.tiles * f.record_bytes();
}
/// Shared memory of many_tokens.
[[nodiscard]] __host__ __device__ constexpr std::size_t
many_tokens_shared_bytes(const device_format& f, block_shape shape, unsigned row_warps, unsigned stages) {
  return (f.form == code_form::table4 ? table_bytes : 0) + stages * many_tokens_stage_bytes(f, shape, row_warps);
}

namespace detail {

/// A warp's part of a block: Tiles tiles of rows times Tokens tiles of tokens.
template <code_form Form, class Float, unsigned Tiles, unsigned Tokens, unsigned TokenWarps, unsigned Groups>
struct many_tokens_warp {
  using shape = unit_shape<Form, Groups>;
  static constexpr unsigned x_bytes = TokenWarps * Tokens * shape::activation_bytes;

  static constexpr unsigned together = 4; ///< tiles of tokens whose products do not wait for each other
  static_assert(Tokens % together == 0);

  const matmul_args& a;
  unsigned char* shared; ///< stages of the block
  const std::uint32_t* table;
  unsigned row_warps;
  float (&acc)[Tiles][Tokens][4];

  [[nodiscard]] __device__ __forceinline__ unsigned stage_bytes() const {
    return x_bytes + row_warps * Tiles * shape::record_bytes;
  }

  /// Each warp copies the tiles of its number, and so on.
  __device__ __forceinline__ void copy_weights(unsigned unit, unsigned char* stage) const {
    const unsigned tiles = row_warps * Tiles, first = blockIdx.x * tiles;
    for (unsigned k = threadIdx.x / 32; k < tiles; k += row_warps * TokenWarps) {
      const bool in = first + k < a.format.tiles();
      copy_record<Form, Groups>(
          stage + x_bytes + k * shape::record_bytes,
          a.weights + (std::size_t{in ? first + k : 0} * a.format.units() + unit) * shape::record_bytes, in);
    }
  }

  /// Records of neighbouring tokens lie side by side.
  __device__ __forceinline__ void copy_activations(unsigned unit, unsigned char* stage) const {
    const unsigned first = blockIdx.y * TokenWarps * Tokens, left = a.token_tiles() - first;
    const unsigned char* const from =
        a.activations + (std::size_t{unit} * a.token_tiles() + first) * shape::activation_bytes;
    for (unsigned at = threadIdx.x * 16; at < x_bytes; at += row_warps * TokenWarps * 512) {
      const bool in = at < left * shape::activation_bytes;
      ptx::copy_async16(stage + at, from + (in ? at : 0), in);
    }
  }

  __device__ __forceinline__ void multiply(const unsigned char* stage) {
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned char* const x = stage + warp % TokenWarps * Tokens * shape::activation_bytes;
    const unsigned char* const w = stage + x_bytes + warp / TokenWarps * Tiles * shape::record_bytes;
    float d[Tiles][Tokens][4];
    SINQ_NO_UNROLL // keeps registers for one block of 64 columns at a time
        for (unsigned b = 0; b < 2; ++b) {
      lane_codes<Form> codes[Tiles];
      SINQ_EACH (k, Tiles) codes[k].load(w + k * shape::record_bytes, lane, b);
      SINQ_EACH (h, 2) {
        if (Groups == 4 || (h == 0 && (Groups == 2 || b == 0)))
          SINQ_EACH (k, Tiles * Tokens * 4) d[k / 4 / Tokens][k / 4 % Tokens][k % 4] = 0;
        multiply_columns(x + (2 * b + h) * 512 + lane * 16, codes, h, d);
        if (Groups == 4 || (h == 1 && (Groups == 2 || b == 1))) add_group(w, x, (2 * b + h) / (4 / Groups), d);
      }
    }
  }

  /// 32 columns, the h-th of a block. @param x  this lane's activations of the first token tile
  __device__ __forceinline__ void multiply_columns(const unsigned char* x, const lane_codes<Form> (&codes)[Tiles],
                                                   unsigned h, float (&d)[Tiles][Tokens][4]) const {
    std::uint32_t pairs[2][Tiles][4];
    SINQ_EACH (k, Tiles)
      SINQ_EACH (i, 8) pairs[i / 4][k][i % 4] = codes[k].pair(Float{}, table, i % 2, 4 * h + i / 2);
    SINQ_UNROLL
    for (unsigned n0 = 0; n0 < Tokens; n0 += together) {
      uint4 b[together];
      SINQ_EACH (n, together) b[n] = *reinterpret_cast<const uint4*>(x + (n0 + n) * shape::activation_bytes);
      SINQ_EACH (half, 2)
        SINQ_EACH (n, together)
          SINQ_EACH (k, Tiles)
            ptx::mma_m16n8k16(Float{}, d[k][n0 + n], pairs[half][k], half == 0 ? b[n].x : b[n].z,
                              half == 0 ? b[n].y : b[n].w, d[k][n0 + n]);
    }
  }

  /// d goes to acc.
  __device__ __forceinline__ void add_group(const unsigned char* w, const unsigned char* x, unsigned group,
                                            const float (&d)[Tiles][Tokens][4]) {
    const unsigned lane = threadIdx.x % 32;
    const float unit = reinterpret_cast<const float*>(x + shape::unit_place)[group];
    const unsigned char* const aux = w + shape::code_bytes + (lane / 4 * Groups + group) * 8;
    row_pair_aux<Form, Float> by[Tiles];
    SINQ_EACH (k, Tiles) by[k] = row_pair_aux<Form, Float>{aux + k * shape::record_bytes, unit};
    SINQ_EACH (n, Tokens) {
      const float2 sum = *reinterpret_cast<const float2*>(x + n * shape::activation_bytes + activation_sum_place +
                                                          (group * token_tile + 2 * (lane % 4)) * 4);
      SINQ_EACH (k, Tiles)
        SINQ_EACH (i, 4) acc[k][n][i] = by[k].add(acc[k][n][i], i / 2, d[k][n][i], i % 2 == 0 ? sum.x : sum.y);
    }
  }

  /// @param begin, end  units of the block
  __device__ __forceinline__ void run(unsigned begin, unsigned end) {
    const unsigned ahead = a.stages - 1, bytes = stage_bytes();
    for (unsigned slot = 0; slot < ahead; ++slot)
      if (begin + slot < end) copy_weights(begin + slot, shared + slot * bytes);
    ptx::wait_for_previous_kernels();
    for (unsigned slot = 0; slot < ahead; ++slot) {
      if (begin + slot < end) copy_activations(begin + slot, shared + slot * bytes);
      ptx::copy_async_commit();
    }
    unsigned slot = 0, next = ahead;
    for (unsigned unit = begin; unit < end; ++unit) {
      wait_for_copies(ahead - 1);
      __syncthreads(); // all have their copies, and are done with the unit before
      if (unit + ahead < end) {
        copy_weights(unit + ahead, shared + next * bytes);
        copy_activations(unit + ahead, shared + next * bytes);
      }
      ptx::copy_async_commit();
      multiply(shared + slot * bytes);
      slot = slot + 1 == a.stages ? 0 : slot + 1;
      next = next + 1 == a.stages ? 0 : next + 1;
    }
  }
};

} // namespace detail

/// y = x W^T + bias for many tokens, on the tensor cores; the equation and the numerics are those of few_tokens.
/// A warp has 16 Tiles rows and 8 Tokens tokens, TokenWarps of them the same rows; activations and weights are copied
/// once for the block, and weights are turned into fragments in registers. Grid (tiles / (Tiles row_warps), token tiles
/// / (Tokens TokenWarps), splits), many_tokens_shared_bytes.
template <code_form Form, class Float, unsigned Tiles, unsigned Tokens, unsigned TokenWarps>
__global__ void __launch_bounds__(256) many_tokens(matmul_args a) {
  SINQ_DYNAMIC_SHARED(unsigned char, shared);
  ptx::let_next_kernel_begin();
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, row_warps = blockDim.x / 32 / TokenWarps;
  std::uint32_t* const table = reinterpret_cast<std::uint32_t*>(shared);
  unsigned char* stages = shared;
  if constexpr (Form == code_form::table4) {
    fill_table(Float{}, table, a.levels);
    stages += table_bytes; // the barrier before the first unit is enough
  }
  float acc[Tiles][Tokens][4] = {};
  with_groups(a.format.unit_groups(), [&](auto groups) {
    detail::many_tokens_warp<Form, Float, Tiles, Tokens, TokenWarps, decltype(groups)::value>{a, stages, table + lane,
                                                                                              row_warps, acc}
        .run(a.split_begin(blockIdx.z), a.split_begin(blockIdx.z + 1));
  });
  const unsigned first_row = (blockIdx.x * row_warps + warp / TokenWarps) * Tiles * tile_rows + lane / 4;
  const unsigned first_token = (blockIdx.y * TokenWarps + warp % TokenWarps) * Tokens * token_tile + 2 * (lane % 4);
  with_target(a, blockIdx.z, [&](const auto& target) {
    float bias[2 * Tiles];
    SINQ_EACH (k, 2 * Tiles) bias[k] = target.bias_of(first_row + 8 * k);
    SINQ_EACH (n, 2 * Tokens) {
      const unsigned token = first_token + n / 2 * token_tile + n % 2;
      if (token >= a.tokens) continue;
      auto* const at = target.at(first_row, token);
      SINQ_EACH (k, 2 * Tiles)
        if (first_row + 8 * k < a.format.rows) at[8 * k] = acc[k / 2][n / 2][k % 2 * 2 + n % 2] + bias[k];
    }
  });
}

} // namespace sinq::cuda::kernels
