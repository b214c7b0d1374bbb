#pragma once

#include "few_tokens.cuh"
#include "gemv.cuh"
#include "layout.hpp"
#include "many_tokens.cuh"
#include "runtime.hpp"

#include <algorithm>

namespace sinq::cuda {

/// Which kernel multiplies.
enum class matmul_kernel : std::uint8_t {
  automatic,   ///< the fastest that the device has
  gemv,        ///< multiply-adds: any device
  few_tokens,  ///< tensor cores, up to 32 tokens: sm_80 and later
  many_tokens, ///< tensor cores, blocks of 64 tokens: sm_80 and later
  dense,       ///< dequantize, then the caller's own GEMM
};

namespace detail {

/// How a multiplication is cut up.
struct matmul_plan {
  matmul_kernel kernel = matmul_kernel::gemv;
  unsigned tiles = 1;       ///< tiles of 16 rows for each warp, or block where warps share a tile
  unsigned token_tiles = 1; ///< tiles of 8 tokens for each block
  unsigned gemv_tokens = 1; ///< of a block of gemv
  unsigned warps = 8;
  unsigned stages = 2;
  unsigned splits = 1;
  unsigned blocks = 0; ///< of rows
  std::size_t shared_bytes = 0;
};

[[nodiscard]] constexpr unsigned ceil_div(unsigned count, unsigned by) {
  return (count + by - 1) / by;
}

/// Parts of the units that give every multiprocessor work, of at least `least` units each.
[[nodiscard]] inline unsigned splits_for(unsigned blocks, unsigned wanted, unsigned units, unsigned least) {
  constexpr unsigned most = 8;
  return std::clamp(wanted / std::max(1u, blocks), 1u, std::clamp(units / std::max(1u, least), 1u, most));
}

/// One tile of 16 rows a block, warps along the columns.
[[nodiscard]] inline matmul_plan plan_gemv(const device_format& f, unsigned tokens, const device_info& device) {
  matmul_plan plan{.kernel = matmul_kernel::gemv, .warps = std::min(8u, f.units())};
  plan.gemv_tokens = tokens == 1 ? 1 : tokens <= 4 ? 4 : 8;
  plan.blocks = f.tiles();
  plan.splits = splits_for(plan.blocks * ceil_div(tokens, plan.gemv_tokens),
                           static_cast<unsigned>(device.multiprocessors), f.units(), 2 * plan.warps);
  plan.shared_bytes = kernels::gemv_shared_bytes(f, plan.gemv_tokens, plan.warps);
  return plan;
}

/// Warps along the columns. Two tiles a block where activations or a table weigh as much as weights, or where blocks
/// are many; then each has less in flight, so that more of them fit a multiprocessor.
[[nodiscard]] inline matmul_plan plan_few_tokens(const device_format& f, unsigned tokens, const device_info& device) {
  const auto processors = static_cast<unsigned>(device.multiprocessors);
  matmul_plan plan{.kernel = matmul_kernel::few_tokens, .warps = std::min(8u, f.units())};
  plan.token_tiles = tokens <= 8 ? 1 : tokens <= 16 ? 2 : 4;
  const bool heavy = tokens > 2 || f.form == code_form::u8 || f.form == code_form::table4;
  const bool enough = f.tiles() * 5 >= processors * 8, many = f.tiles() > 2 * processors;
  plan.tiles = plan.token_tiles > 1 || (heavy && enough) || many ? 2 : 1;
  plan.blocks = ceil_div(f.tiles(), plan.tiles);
  const bool waves = plan.blocks > 2 * processors;
  if (waves && plan.token_tiles == 4) plan.warps = std::min(4u, plan.warps);
  plan.stages = waves ? 2 : plan.token_tiles == 2 ? 3 : 4;
  const auto bytes = [&](unsigned stages) {
    return kernels::few_tokens_shared_bytes(f, plan.tiles, plan.token_tiles, plan.warps, stages);
  };
  while (plan.warps > 1 && bytes(2) > device.shared_bytes) plan.warps /= 2;
  while (plan.stages > 2 && bytes(plan.stages) > device.shared_bytes) --plan.stages;
  plan.shared_bytes = bytes(plan.stages);
  plan.splits = splits_for(plan.blocks, processors / 2, f.units(), 2 * plan.warps);
  return plan;
}

/// Eight tiles a block of four warps: two of them share a multiprocessor.
[[nodiscard]] inline matmul_plan plan_many_tokens(const device_format& f, unsigned tokens, const device_info& device) {
  const auto processors = static_cast<unsigned>(device.multiprocessors);
  matmul_plan plan{.kernel = matmul_kernel::many_tokens, .tiles = 2, .token_tiles = 8, .warps = 4, .stages = 3};
  const unsigned columns = ceil_div(tokens, plan.token_tiles * token_tile);
  const auto bytes = [&](unsigned stages) {
    return kernels::many_tokens_shared_bytes(f, {plan.tiles, plan.token_tiles, 1}, plan.warps, stages);
  };
  if (bytes(plan.stages) > device.shared_bytes / 2) plan.stages = 2;
  while (plan.warps > 1 && bytes(plan.stages) > device.shared_bytes) plan.warps /= 2;
  plan.shared_bytes = bytes(plan.stages);
  plan.blocks = ceil_div(f.tiles(), plan.warps * plan.tiles);
  plan.splits = splits_for(plan.blocks * columns, 2 * processors, f.units(), 4);
  return plan;
}

} // namespace detail

} // namespace sinq::cuda
