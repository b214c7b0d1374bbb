#pragma once

#include "codes.cuh"

namespace sinq::cuda::kernels {

/// Types that outputs are written in.
enum class output_type : std::uint8_t { f16, bf16, f32 };

/// What kernels of y = x W^T + bias read and write.
struct matmul_args {
  device_format format;
  const unsigned char* weights;     ///< records of device_format
  const float* levels;              ///< [16] of table4
  const unsigned char* activations; ///< records of prepare_activations
  unsigned tokens;
  unsigned stages;    ///< units that a block has in flight
  unsigned splits;    ///< parts of the units, each a block of its own; their sums are added by add_splits
  const float* bias;  ///< [rows], or null
  float* partial;     ///< [splits x tokens x rows] if splits > 1
  void* y;            ///< [tokens x rows] of `type`
  std::size_t stride; ///< elements from one token of y to the next
  output_type type;

  [[nodiscard]] __host__ __device__ unsigned token_tiles() const { return (tokens + token_tile - 1) / token_tile; }
  /// The first unit of a part.
  [[nodiscard]] __host__ __device__ unsigned split_begin(unsigned split) const {
    return static_cast<unsigned>(std::uint64_t{format.units()} * split / splits);
  }
};

/// An output in memory.
template <class Float>
struct stored_output {
  std::uint16_t bits;
  __device__ __forceinline__ void operator=(float value) { bits = ptx::from_float(Float{}, value); }
};

/// Where a block's sums go: to y, with the bias, or to its part of the partial sums.
template <class Out>
struct output_target {
  const matmul_args& a;
  Out* to;            ///< [tokens x rows]
  std::size_t stride; ///< elements from one token to the next
  const float* bias;  ///< [rows], or null

  [[nodiscard]] __device__ __forceinline__ Out* at(unsigned row, unsigned token) const {
    return to + token * stride + row;
  }
  /// 0 outside of the rows too.
  [[nodiscard]] __device__ __forceinline__ float bias_of(unsigned row) const {
    return bias != nullptr && row < a.format.rows ? bias[row] : 0.0f;
  }
  /// y = sum + bias, rounded once.
  __device__ __forceinline__ void write(unsigned row, unsigned token, float sum) const {
    if (row < a.format.rows && token < a.tokens) *at(row, token) = sum + bias_of(row);
  }
};

/// Calls f with the output_target of a block that has that part of the units.
template <class F>
__device__ __forceinline__ void with_target(const matmul_args& a, unsigned split, F f) {
  if (a.splits > 1)
    f(output_target<float>{a, a.partial + std::size_t{split} * a.tokens * a.format.rows, a.format.rows, nullptr});
  else if (a.type == output_type::f16)
    f(output_target<stored_output<f16>>{a, static_cast<stored_output<f16>*>(a.y), a.stride, a.bias});
  else if (a.type == output_type::bf16)
    f(output_target<stored_output<bf16>>{a, static_cast<stored_output<bf16>*>(a.y), a.stride, a.bias});
  else
    f(output_target<float>{a, static_cast<float*>(a.y), a.stride, a.bias});
}

/// Adds the sums of all parts, the first one first. Grid (rows / 256, tokens), 256 threads.
/// A template, so that programs of many units have it once.
template <class = void>
__global__ void __launch_bounds__(256) add_splits(matmul_args a) {
  ptx::let_next_kernel_begin();
  ptx::wait_for_previous_kernels();
  const unsigned row = blockIdx.x * 256 + threadIdx.x, token = blockIdx.y;
  if (row >= a.format.rows) return;
  float sum = 0;
  for (unsigned split = 0; split < a.splits; ++split)
    sum += a.partial[(std::size_t{split} * a.tokens + token) * a.format.rows + row];
  matmul_args whole = a;
  whole.splits = 1;
  with_target(whole, 0, [&](const auto& target) { target.write(row, token, sum); });
}

/// Scale and zero point of rows g and g + 8, for sums of pairs: s unit (sum level x' - z sum x') is
/// scale * (sum pair x' - zero * sum x').
template <code_form Form, class Float>
struct row_pair_aux {
  float scale[2];
  float zero[2];

  __device__ __forceinline__ row_pair_aux() {}
  /// @param from  scale and zero point of both rows in a record of weights
  __device__ __forceinline__ row_pair_aux(const unsigned char* from, float unit) {
    const uint2 both = *reinterpret_cast<const uint2*>(from);
    constexpr float by = pair_scale<Form, Float>, offset = pair_offset<Form, Float>;
    SINQ_EACH (r, 2) {
      const float2 stored = ptx::to_floats(f16{}, r == 0 ? both.x : both.y);
      scale[r] = stored.x * (unit / by);
      zero[r] = (stored.y + offset) * by;
    }
  }
  [[nodiscard]] __device__ __forceinline__ float add(float acc, unsigned r, float product, float sum) const {
    return fmaf(scale[r], fmaf(-zero[r], sum, product), acc);
  }
};

} // namespace sinq::cuda::kernels
