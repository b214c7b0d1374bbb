#pragma once

#include "outputs.cuh"

namespace sinq::cuda::kernels {

/// Shared memory of gemv.
[[nodiscard]] __host__ __device__ constexpr std::size_t gemv_shared_bytes(const device_format& f, unsigned tokens,
                                                                          unsigned warps) {
  return (f.form == code_form::table4 ? table_bytes : 0) + warps * tile_rows * tokens * 4;
}

namespace detail {

/// What a lane of gemv adds up: rows g and g + 8 of the columns that it owns.
template <code_form Form, class Float, unsigned Tokens>
struct gemv_lane {
  const matmul_args& a;
  const std::uint32_t* table;
  unsigned token_tile_index, lane;
  float acc[2][Tokens] = {};

  __device__ __forceinline__ void multiply(const unsigned char* record, unsigned unit, unsigned first_token) {
    const unsigned char* const x =
        a.activations + (std::size_t{unit} * a.token_tiles() + token_tile_index) * activation_bytes(a.format);
    lane_codes<Form> codes;
    float d[2][Tokens] = {};
    SINQ_EACH (q, 4) {
      if (q % 2 == 0) codes.load(record, lane, q / 2);
      float2 w[2][4];
      SINQ_EACH (r, 2)
        SINQ_EACH (i, 4) w[r][i] = ptx::to_floats(f16{}, codes.pair(f16{}, table, r, 4 * (q % 2) + i));
      SINQ_EACH (n, Tokens) {
        const uint4 eight = __ldg(reinterpret_cast<const uint4*>(x) + q * 32 + 4 * (first_token + n) + lane % 4);
        const std::uint32_t word[4] = {eight.x, eight.y, eight.z, eight.w};
        SINQ_EACH (i, 4) {
          const float2 v = ptx::to_floats(Float{}, word[i]);
          SINQ_EACH (r, 2) d[r][n] = fmaf(w[r][i].y, v.y, fmaf(w[r][i].x, v.x, d[r][n]));
        }
      }
      const unsigned groups = a.format.unit_groups();
      if ((q + 1) * groups % 4 == 0) add_group(record, x, first_token, q * groups / 4, d);
    }
  }

  /// d goes to acc; the sum of a group is taken off by one of the four lanes of a row.
  __device__ __forceinline__ void add_group(const unsigned char* record, const unsigned char* x, unsigned first_token,
                                            unsigned group, float (&d)[2][Tokens]) {
    const float unit = reinterpret_cast<const float*>(x + activation_unit_place(a.format))[group];
    const float* const sums = reinterpret_cast<const float*>(x + activation_sum_place) + group * token_tile;
    const row_pair_aux<Form, f16> aux{record + a.format.code_bytes() + (lane / 4 * a.format.unit_groups() + group) * 8,
                                      unit};
    SINQ_EACH (n, Tokens) {
      const float sum = lane % 4 == 0 ? sums[first_token + n] : 0.0f;
      SINQ_EACH (r, 2) {
        acc[r][n] = aux.add(acc[r][n], r, d[r][n], sum);
        d[r][n] = 0;
      }
    }
  }
};

} // namespace detail

/// y = x W^T + bias on ordinary multiply-adds in f32, for processors without tensor cores for bfloat16 or copies past
/// registers (before sm_80). The equation is that of few_tokens; levels of table4 are rounded to f16.
/// A block has one tile of 16 rows and Tokens tokens; its warps take turns at the units of its part.
/// Grid (tiles, ceil(tokens / Tokens), splits), a multiple of 32 threads, gemv_shared_bytes.
template <code_form Form, class Float, unsigned Tokens>
__global__ void __launch_bounds__(256, 1) gemv(matmul_args a) {
  static_assert(token_tile % Tokens == 0);
  SINQ_DYNAMIC_SHARED(unsigned char, shared);
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  std::uint32_t* const table = reinterpret_cast<std::uint32_t*>(shared);
  float* sums = reinterpret_cast<float*>(shared); // [warp][token][row]
  if constexpr (Form == code_form::table4) {
    fill_table(f16{}, table, a.levels);
    sums += table_bytes / 4;
    __syncthreads();
  }
  ptx::wait_for_previous_kernels();
  const unsigned first_token = blockIdx.y * Tokens, in_tile = first_token % token_tile;
  detail::gemv_lane<Form, Float, Tokens> by{a, table + lane, first_token / token_tile, lane};
  const unsigned end = a.split_begin(blockIdx.z + 1);
  for (unsigned unit = a.split_begin(blockIdx.z) + warp; unit < end; unit += warps)
    by.multiply(a.weights + (std::size_t{blockIdx.x} * a.format.units() + unit) * a.format.record_bytes(), unit,
                in_tile);
  SINQ_EACH (r, 2)
    SINQ_EACH (n, Tokens) {
      float sum = by.acc[r][n];
      sum += __shfl_xor_sync(ptx::all_lanes, sum, 1);
      sum += __shfl_xor_sync(ptx::all_lanes, sum, 2);
      if (lane % 4 == 0) sums[(warp * Tokens + n) * tile_rows + lane / 4 + 8 * r] = sum;
    }
  __syncthreads();
  with_target(a, blockIdx.z, [&](const auto& target) {
    for (unsigned k = threadIdx.x; k < tile_rows * Tokens; k += blockDim.x) {
      float sum = 0;
      for (unsigned w = 0; w < warps; ++w) sum += sums[w * tile_rows * Tokens + k];
      target.write(blockIdx.x * tile_rows + k % tile_rows, first_token + k / tile_rows, sum);
    }
  });
}

} // namespace sinq::cuda::kernels
