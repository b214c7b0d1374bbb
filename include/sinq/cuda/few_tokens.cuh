#pragma once

#include "copies.cuh"

namespace sinq::cuda::kernels {

/// From the sums of one token to those of the next, when a block adds those of its warps: four lanes that hold eight
/// rows of tokens two apart want different banks.
[[nodiscard]] SINQ_HOST_DEVICE constexpr unsigned few_tokens_sums_stride(unsigned tiles) {
  return tiles * tile_rows + 4;
}

/// Shared memory of few_tokens.
/// @param tiles, tokens  as its arguments Tiles and Tokens
[[nodiscard]] __host__ __device__ constexpr std::size_t
few_tokens_shared_bytes(const device_format& f, unsigned tiles, unsigned tokens, unsigned warps, unsigned stages) {
  const std::size_t stage = tiles * f.record_bytes() + tokens * activation_bytes(f);
  const std::size_t sums = std::size_t{few_tokens_sums_stride(tiles)} * tokens * token_tile * sizeof(float);
  return (f.form == code_form::table4 ? table_bytes : 0) + warps * (stages * stage > sums ? stages * stage : sums);
}

namespace detail {

/// A warp's way through its units: copies them to shared memory ahead of their use and multiplies them.
template <code_form Form, class Float, unsigned Tiles, unsigned Tokens, unsigned Groups>
struct few_tokens_warp {
  using shape = unit_shape<Form, Groups>;
  static constexpr unsigned stage_bytes = Tiles * shape::record_bytes + Tokens * shape::activation_bytes;

  const matmul_args& a;
  unsigned char* stages; ///< of this warp
  const std::uint32_t* table;
  unsigned tile;
  float (&acc)[Tiles][Tokens][4];

  __device__ __forceinline__ void copy_weights(unsigned unit, unsigned char* stage) const {
    const std::size_t of_tile = std::size_t{a.format.units()} * shape::record_bytes;
    const unsigned char* const from = a.weights + tile * of_tile + std::size_t{unit} * shape::record_bytes;
    SINQ_EACH (k, Tiles) {
      const bool in = tile + k < a.format.tiles();
      copy_record<Form, Groups>(stage + k * shape::record_bytes, from + (in ? k : 0) * of_tile, in);
    }
  }

  /// Only the tokens that are there are read.
  __device__ __forceinline__ void copy_activations(unsigned unit, unsigned char* stage) const {
    const unsigned lane = threadIdx.x % 32, tiles = a.token_tiles();
    const unsigned char* const from = a.activations + std::size_t{unit} * tiles * shape::activation_bytes + lane * 16;
    unsigned char* const to = stage + Tiles * shape::record_bytes + lane * 16;
    SINQ_EACH (n, Tokens) {
      const bool in = n * token_tile + lane / 4 < a.tokens;
      const unsigned at = n * shape::activation_bytes, or_first = n < tiles ? at : 0;
      SINQ_EACH (k, 4) ptx::copy_async16(to + at + k * 512, from + or_first + k * 512, in);
      if (lane < (shape::activation_bytes - activation_sum_place) / 16)
        ptx::copy_async16(to + at + activation_sum_place, from + or_first + activation_sum_place);
    }
  }

  __device__ __forceinline__ void multiply(const unsigned char* stage) {
    const unsigned lane = threadIdx.x % 32;
    const unsigned char* const x = stage + Tiles * shape::record_bytes;
    lane_codes<Form> codes[Tiles];
    float d[Tiles][Tokens][4];
    SINQ_EACH (q, 4) {
      if (q % 2 == 0)
        SINQ_EACH (k, Tiles) codes[k].load(stage + k * shape::record_bytes, lane, q / 2);
      if (q % (4 / Groups) == 0)
        SINQ_EACH (k, Tiles * Tokens * 4) d[k / 4 / Tokens][k / 4 % Tokens][k % 4] = 0;
      uint4 b[Tokens];
      SINQ_EACH (n, Tokens)
        b[n] = *reinterpret_cast<const uint4*>(x + n * shape::activation_bytes + (q * 32 + lane) * 16);
      SINQ_EACH (half, 2)
        SINQ_EACH (k, Tiles) {
          const unsigned n = 4 * (q % 2) + 2 * half;
          const std::uint32_t w[4] = {codes[k].pair(Float{}, table, 0, n), codes[k].pair(Float{}, table, 1, n),
                                      codes[k].pair(Float{}, table, 0, n + 1), codes[k].pair(Float{}, table, 1, n + 1)};
          SINQ_EACH (m, Tokens)
            ptx::mma_m16n8k16(Float{}, d[k][m], w, half == 0 ? b[m].x : b[m].z, half == 0 ? b[m].y : b[m].w, d[k][m]);
        }
      if ((q + 1) % (4 / Groups) == 0) add_group(stage, q / (4 / Groups), d);
    }
  }

  /// d goes to acc.
  __device__ __forceinline__ void add_group(const unsigned char* stage, unsigned group,
                                            const float (&d)[Tiles][Tokens][4]) {
    const unsigned lane = threadIdx.x % 32;
    const unsigned char* const x = stage + Tiles * shape::record_bytes;
    const float unit = reinterpret_cast<const float*>(x + shape::unit_place)[group];
    float2 sum[Tokens];
    SINQ_EACH (n, Tokens)
      sum[n] = *reinterpret_cast<const float2*>(x + n * shape::activation_bytes + activation_sum_place +
                                                (group * token_tile + 2 * (lane % 4)) * 4);
    SINQ_EACH (k, Tiles) {
      const row_pair_aux<Form, Float> aux{
          stage + k * shape::record_bytes + shape::code_bytes + (lane / 4 * Groups + group) * 8, unit};
      SINQ_EACH (n, Tokens)
        SINQ_EACH (i, 4) acc[k][n][i] = aux.add(acc[k][n][i], i / 2, d[k][n][i], i % 2 == 0 ? sum[n].x : sum[n].y);
    }
  }

  /// @param begin, end  units of the block from this warp's first on; it takes every `warps`-th of them
  __device__ __forceinline__ void run(unsigned begin, unsigned end, unsigned warps) {
    for (unsigned slot = 0; slot < a.stages; ++slot)
      if (begin + slot * warps < end) copy_weights(begin + slot * warps, stages + slot * stage_bytes);
    ptx::wait_for_previous_kernels();
    for (unsigned slot = 0; slot < a.stages; ++slot) {
      if (begin + slot * warps < end) copy_activations(begin + slot * warps, stages + slot * stage_bytes);
      ptx::copy_async_commit();
    }
    unsigned char* stage = stages;
    for (unsigned unit = begin; unit < end; unit += warps) {
      wait_for_copies(a.stages - 1);
      __syncwarp();
      multiply(stage);
      __syncwarp();
      if (const unsigned next = unit + a.stages * warps; next < end) {
        copy_weights(next, stage);
        copy_activations(next, stage);
      }
      ptx::copy_async_commit();
      stage += stage_bytes;
      if (stage == stages + a.stages * stage_bytes) stage = stages;
    }
    ptx::copy_async_wait<0>();
  }
};

} // namespace detail

/// y = x W^T + bias for up to 8 Tokens tokens, on the tensor cores, codes being exact in 16 bits and everything else in
/// f32:
///   y[m][i] = sum_g s[i][g] unit[g] (sum_{j in g} level[i][j] x'[m][j] - z[i][g] sum[m][g]) + bias[i]
/// A block has Tiles tiles of 16 rows; its warps take turns at the units of its part, and their sums are added in their
/// order. Grid (tiles / Tiles, splits), a multiple of 32 threads, few_tokens_shared_bytes.
template <code_form Form, class Float, unsigned Tiles, unsigned Tokens>
__global__ void __launch_bounds__(256) few_tokens(matmul_args a) {
  SINQ_DYNAMIC_SHARED(unsigned char, shared);
  ptx::let_next_kernel_begin();
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  std::uint32_t* const table = reinterpret_cast<std::uint32_t*>(shared);
  unsigned char* stages = shared;
  if constexpr (Form == code_form::table4) {
    fill_table(Float{}, table, a.levels);
    stages += table_bytes;
    __syncthreads();
  }
  float acc[Tiles][Tokens][4] = {};
  with_groups(a.format.unit_groups(), [&](auto groups) {
    using work = detail::few_tokens_warp<Form, Float, Tiles, Tokens, decltype(groups)::value>;
    work by{a, stages + warp * a.stages * work::stage_bytes, table + lane, blockIdx.x * Tiles, acc};
    by.run(a.split_begin(blockIdx.y) + warp, a.split_begin(blockIdx.y + 1), warps);
  });
  __syncthreads();
  constexpr unsigned rows = Tiles * tile_rows, stride = few_tokens_sums_stride(Tiles);
  constexpr unsigned of_warp = stride * token_tile * Tokens;
  float* const sums = reinterpret_cast<float*>(stages); // [warp][token][row]
  SINQ_EACH (k, Tiles)
    SINQ_EACH (n, Tokens)
      SINQ_EACH (i, 4)
        sums[warp * of_warp + (n * token_tile + 2 * (lane % 4) + i % 2) * stride + k * tile_rows + lane / 4 +
             8 * (i / 2)] = acc[k][n][i];
  __syncthreads();
  with_target(a, blockIdx.y, [&](const auto& target) {
    for (unsigned n = threadIdx.x; n < rows * token_tile * Tokens; n += blockDim.x) {
      const unsigned row = n % rows, token = n / rows;
      float sum = 0;
      for (unsigned w = 0; w < warps; ++w) sum += sums[w * of_warp + token * stride + row];
      target.write(blockIdx.x * rows + row, token, sum);
    }
  });
}

} // namespace sinq::cuda::kernels
