#pragma once

/// What the lanes of a warp, and the threads of a block, do together: barriers, shuffles, votes.

#include "launch.hpp"

namespace sinq_emulation::detail {

inline constexpr const char* syncwarp_name = "__syncwarp";

[[nodiscard]] inline exchange_board& free_board(warp_state& warp) {
  for (const auto& board : warp.boards)
    if (board->readers == 0 && board->arrived == 0) return *board;
  warp.boards.push_back(std::make_unique<exchange_board>());
  return *warp.boards.back();
}

/// Joins the collective operation of a mask, opening it if this lane is the first.
[[nodiscard]] inline exchange_board& join(std::uint32_t mask, const char* operation, const place& where) {
  warp_state& warp = current_warp();
  const unsigned lane = current_lane();
  if ((mask >> lane & 1U) == 0) fail(where, operation, ": the lane is not in its own mask");
  if (warp.held[lane] != nullptr) warp.held[lane]->readers &= ~(1U << lane);
  warp.held[lane] = nullptr;
  for (exchange_board* board : warp.open) {
    if (board->mask != mask) continue;
    if (board->operation != operation || !(board->where == where))
      fail(where, "lanes of one warp meet at different collective operations, ", board->operation, " at ", board->where,
           " and ", operation);
    return *board;
  }
  exchange_board& board = free_board(warp);
  board.operation = operation;
  board.where = where;
  board.mask = mask;
  warp.open.push_back(&board);
  return board;
}

/// All lanes of `mask` bring their words, wait for each other and see everyone's words until their next exchange.
[[nodiscard]] inline const exchange_board& exchange(std::uint32_t mask, const char* operation, const void* in,
                                                    std::size_t bytes, const place& where) {
  exchange_board& board = join(mask, operation, where);
  warp_state& warp = current_warp();
  const unsigned lane = current_lane();
  std::memcpy(board.words[lane].data(), in, bytes);
  warp.held[lane] = &board;
  board.arrived |= 1U << lane;
  if (board.arrived != mask) {
    suspend(thread_state::standing::at_collective, where);
    return board;
  }
  if (mask == 0xffffffffU && board.operation == syncwarp_name) ++warp.synchronized;
  board.readers = mask;
  board.arrived = 0;
  std::erase(warp.open, &board);
  const unsigned first = current_thread->linear - lane;
  for (unsigned k = 0; k < warp_size; ++k)
    if (k != lane && (mask >> k & 1U) != 0) current_block->threads[first + k].now = thread_state::standing::ready;
  return board;
}

/// What lane `source` brought.
template <class T>
[[nodiscard]] T brought(const exchange_board& board, unsigned source, const place& where) {
  if ((board.mask >> source & 1U) == 0) fail(where, board.operation, ": lane ", source, " is read but not in the mask");
  T value;
  std::memcpy(&value, board.words[source].data(), sizeof(T));
  return value;
}

inline void check_width(int width, const place& where) {
  if (width < 1 || width > static_cast<int>(warp_size) || (width & (width - 1)) != 0)
    fail(where, "shuffle: the width is a power of two of at most 32");
}

/// `source_of(lane inside its segment)` is a lane inside the segment; outside of it a lane gets its own value.
template <class T, class SourceOf>
[[nodiscard]] T shuffle(std::uint32_t mask, const char* operation, T value, int width, const place& where,
                        SourceOf source_of) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 2);
  check_width(width, where);
  const exchange_board& board = exchange(mask, operation, &value, sizeof(T), where);
  const int lane = static_cast<int>(current_lane());
  const int segment = lane / width * width;
  const int source = source_of(lane - segment);
  return brought<T>(board, static_cast<unsigned>(source < 0 || source >= width ? lane : segment + source), where);
}

[[nodiscard]] inline std::uint32_t ballot(std::uint32_t mask, const char* operation, int predicate,
                                          const place& where) {
  const exchange_board& board = exchange(mask, operation, &predicate, sizeof predicate, where);
  std::uint32_t votes = 0;
  for (unsigned k = 0; k < warp_size; ++k)
    if ((mask >> k & 1U) != 0 && board.words[k][0] != 0) votes |= 1U << k;
  return votes;
}

} // namespace sinq_emulation::detail

inline void __syncthreads(const sinq_emulation::place& where = sinq_emulation::place::current()) {
  sinq_emulation::detail::suspend(sinq_emulation::detail::thread_state::standing::at_barrier, where);
}
inline int __syncthreads_count(int predicate, const sinq_emulation::place& where = sinq_emulation::place::current()) {
  auto& block = *sinq_emulation::detail::current_block;
  block.votes += predicate != 0 ? 1 : 0;
  sinq_emulation::detail::suspend(sinq_emulation::detail::thread_state::standing::at_barrier, where);
  return block.vote_result[block.barriers % 2];
}
inline int __syncthreads_or(int predicate, const sinq_emulation::place& where = sinq_emulation::place::current()) {
  return __syncthreads_count(predicate, where) != 0 ? 1 : 0;
}
inline int __syncthreads_and(int predicate, const sinq_emulation::place& where = sinq_emulation::place::current()) {
  return __syncthreads_count(predicate == 0 ? 1 : 0, where) == 0 ? 1 : 0;
}

inline void __syncwarp(unsigned mask = 0xffffffffU,
                       const sinq_emulation::place& where = sinq_emulation::place::current()) {
  const std::uint32_t nothing = 0;
  (void)sinq_emulation::detail::exchange(mask, sinq_emulation::detail::syncwarp_name, &nothing, sizeof nothing, where);
}

inline unsigned __ballot_sync(unsigned mask, int predicate,
                              const sinq_emulation::place& where = sinq_emulation::place::current()) {
  return sinq_emulation::detail::ballot(mask, "__ballot_sync", predicate, where);
}
inline int __any_sync(unsigned mask, int predicate,
                      const sinq_emulation::place& where = sinq_emulation::place::current()) {
  return sinq_emulation::detail::ballot(mask, "__any_sync", predicate, where) != 0 ? 1 : 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      const sinq_emulation::place& where = sinq_emulation::place::current()) {
  return sinq_emulation::detail::ballot(mask, "__all_sync", predicate, where) == mask ? 1 : 0;
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              const sinq_emulation::place& where = sinq_emulation::place::current()) {
  return sinq_emulation::detail::shuffle(mask, "__shfl_sync", value, width, where,
                                         [&](int) { return source & (width - 1); });
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 const sinq_emulation::place& where = sinq_emulation::place::current()) {
  return sinq_emulation::detail::shuffle(mask, "__shfl_up_sync", value, width, where,
                                         [&](int lane) { return lane - static_cast<int>(delta); });
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   const sinq_emulation::place& where = sinq_emulation::place::current()) {
  return sinq_emulation::detail::shuffle(mask, "__shfl_down_sync", value, width, where,
                                         [&](int lane) { return lane + static_cast<int>(delta); });
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int flipped, int width = 32,
                  const sinq_emulation::place& where = sinq_emulation::place::current()) {
  if (flipped < 0 || flipped >= width) sinq_emulation::detail::fail(where, "__shfl_xor_sync leaves its segment");
  return sinq_emulation::detail::shuffle(mask, "__shfl_xor_sync", value, width, where,
                                         [&](int lane) { return lane ^ flipped; });
}
