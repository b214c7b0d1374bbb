#pragma once

#include "layout.hpp"
#include "runtime.hpp"

#include <algorithm>

namespace sinq::cuda {

/// Which kernel multiplies.
enum class matmul_kernel : std::uint8_t {
  automatic,   ///< the fastest that the device has
  gemv,        ///< multiply-adds: any device
  few_tokens,  ///< tensor cores, 8 tokens at a time: sm_80 and later
  many_tokens, ///< tensor cores, blocks of tokens: sm_80 and later
  dense,       ///< dequantize, then the caller's own GEMM
};

namespace detail {

/// How a multiplication is cut up.
struct matmul_plan {
  matmul_kernel kernel = matmul_kernel::gemv;
  unsigned tiles = 1;        ///< tiles of 16 rows for each warp, or block where warps share a tile
  unsigned token_tiles = 1;  ///< tiles of 8 tokens for each block
  unsigned gemv_tokens = 1;  ///< of a block of gemv
  unsigned warps = 8;
  unsigned stages = 2;
  unsigned splits = 1;
  unsigned blocks = 0; ///< of rows
  std::size_t shared_bytes = 0;
};

[[nodiscard]] constexpr unsigned ceil_div(unsigned count, unsigned by) {
  return (count + by - 1) / by;
}

/// Bytes of the table in shared memory: see fill_table.
[[nodiscard]] constexpr std::size_t table_shared_bytes(code_form form) {
  return form == code_form::table4 ? 256 * 32 * 4 : 0;
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
  plan.shared_bytes = table_shared_bytes(f.form) + std::size_t{plan.warps} * tile_rows * plan.gemv_tokens * 4;
  return plan;
}

/// Two tiles a block where activations weigh as much as weights and there are blocks enough, otherwise one.
[[nodiscard]] inline matmul_plan plan_few_tokens(const device_format& f, unsigned tokens, const device_info& device) {
  constexpr unsigned stages = 4;
  const auto processors = static_cast<unsigned>(device.multiprocessors);
  matmul_plan plan{.kernel = matmul_kernel::few_tokens, .warps = std::min(8u, f.units()), .stages = stages};
  plan.tiles = tokens > 2 && f.tiles() * 5 >= processors * 8 ? 2 : 1;
  const auto bytes = [&] {
    const std::size_t stage = std::size_t{plan.tiles} * f.record_bytes() + activation_bytes(f);
    return table_shared_bytes(f.form) + plan.warps * stages * stage;
  };
  while (plan.warps > 1 && bytes() > device.shared_bytes) plan.warps /= 2;
  plan.shared_bytes = bytes();
  plan.blocks = ceil_div(f.tiles(), plan.tiles);
  plan.splits = splits_for(plan.blocks, processors / 2, f.units(), 2 * plan.warps);
  return plan;
}

/// The smallest block of tokens that holds all, with more rows for the largest.
[[nodiscard]] inline matmul_plan plan_many_tokens(const device_format& f, unsigned tokens, const device_info& device) {
  const auto processors = static_cast<unsigned>(device.multiprocessors);
  matmul_plan plan{.kernel = matmul_kernel::many_tokens, .warps = 4};
  plan.token_tiles = tokens <= 16 ? 2 : tokens <= 32 ? 4 : 8;
  plan.tiles = plan.token_tiles == 8 ? 2 : 1;
  const unsigned columns = ceil_div(tokens, plan.token_tiles * token_tile);
  if (plan.tiles == 2 && ceil_div(f.tiles(), 16) * columns >= processors * 3 / 4) plan.warps = 8;
  const auto stage = [&] {
    return std::size_t{plan.token_tiles} * activation_bytes(f) + std::size_t{plan.warps} * plan.tiles * f.record_bytes();
  };
  const std::size_t room = device.shared_bytes - table_shared_bytes(f.form);
  while (plan.warps > 1 && 2 * stage() > room) plan.warps /= 2;
  const std::size_t wanted = plan.warps == 4 ? room / 2 : room; // two blocks of four warps share a multiprocessor
  plan.stages = static_cast<unsigned>(std::clamp<std::size_t>(wanted / stage(), 2, 4));
  plan.shared_bytes = table_shared_bytes(f.form) + plan.stages * stage();
  plan.blocks = ceil_div(f.tiles(), plan.warps * plan.tiles);
  plan.splits = splits_for(plan.blocks * columns, plan.warps == 4 ? 2 * processors : processors, f.units(), 4);
  return plan;
}

} // namespace detail

} // namespace sinq::cuda
