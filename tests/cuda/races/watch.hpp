#pragma once

/// Finds data races: two threads that touch a byte, one of them writing, with no barrier between. Watched are shared
/// memory and what cudaMalloc gave. An access is as old as the last barrier: of the block, or of the warp for its
/// lanes. Threads of different blocks of one launch are never in order. What a schedule makes of a race does not matter
/// here.

#include "cuda/emulation/emulation.hpp"

#include <unordered_map>

namespace sinq_emulation {

namespace detail {

/// Who touched a byte, and when.
struct access {
  std::uint32_t interval = 0;
  std::uint32_t warp_synchronized = 0;
  std::uint16_t thread = 0;
  bool to_shared = false; ///< memory that each block has anew
};

/// Of reads, as many as it takes to find one that is not in order with a write: the last one, the last one before it of
/// its own warp, and the last one of another warp or block.
struct byte_history {
  access write;
  access read;
  access read_by_mate;
  access read_by_stranger;
};

/// Whether an access may concern the running block at all.
[[nodiscard]] inline bool is_recent(const access& a) {
  return a.interval >= (a.to_shared ? current_block->first_interval : current_block->first_interval_of_launch);
}

[[nodiscard]] inline bool same_warp(const access& a, const access& b) {
  return a.interval == b.interval && a.thread / warp_size == b.thread / warp_size;
}

/// Whether an earlier access is not known to be over.
[[nodiscard]] inline bool unordered(const access& earlier, const access& now) {
  if (!is_recent(earlier)) return false;
  if (earlier.interval < current_block->first_interval) return true;
  if (earlier.interval < now.interval || earlier.thread == now.thread) return false;
  return !same_warp(earlier, now) || earlier.warp_synchronized == now.warp_synchronized;
}

inline void remember_read(byte_history& history, const access& now) {
  if (is_recent(history.read) && history.read.thread != now.thread)
    (same_warp(history.read, now) ? history.read_by_mate : history.read_by_stranger) = history.read;
  else if (unordered(history.read, now))
    history.read_by_stranger = history.read;
  history.read = now;
}

/// What is wrong with an access, and who the other thread is.
struct problem {
  const char* what = nullptr;
  unsigned other_thread = 0;
};

/// Histories in pages, found by address.
[[nodiscard]] inline byte_history& history_of(std::uintptr_t address) {
  constexpr std::uintptr_t page_bytes = 1024;
  static std::unordered_map<std::uintptr_t, std::vector<byte_history>> pages;
  static std::uintptr_t last_number = 0;
  static std::vector<byte_history>* last_page = nullptr;
  const std::uintptr_t number = address / page_bytes;
  if (last_page == nullptr || number != last_number) {
    last_page = &pages.try_emplace(number, page_bytes).first->second;
    last_number = number;
  }
  return (*last_page)[address % page_bytes];
}

[[nodiscard]] inline bool is_shared(const void* address) {
  const auto* byte = static_cast<const unsigned char*>(address);
  return byte >= shared_pool() && byte < shared_pool() + shared_pool_bytes;
}

[[nodiscard]] inline bool is_allocated(const void* address) {
  const auto& allocated = device().allocated;
  if (allocated.empty() || address < allocated.begin()->first) return false;
  auto next = allocated.upper_bound(const_cast<void*>(address));
  if (next == allocated.begin()) return false;
  --next;
  return static_cast<const char*>(address) < static_cast<const char*>(next->first) + next->second;
}

[[nodiscard]] inline problem check_byte(byte_history& history, const access& now, bool is_write) {
  if (unordered(history.write, now))
    return {is_write ? "memory is written that another thread wrote, with no barrier between"
                     : "memory is read that another thread wrote, with no barrier between",
            history.write.thread};
  if (!is_write && now.to_shared && history.write.interval < current_block->first_interval)
    return {"shared memory is read that nobody wrote", now.thread};
  if (is_write)
    for (const access& read : {history.read, history.read_by_mate, history.read_by_stranger})
      if (unordered(read, now))
        return {"memory is written that another thread read, with no barrier between", read.thread};
  if (is_write)
    history.write = now;
  else
    remember_read(history, now);
  return {};
}

[[nodiscard]] inline problem check_access(const void* address, std::size_t bytes, bool is_write) {
  const bool shared = is_shared(address);
  if (!shared && !is_allocated(address)) return {};
  const access now{current_block->interval, current_warp().synchronized,
                   static_cast<std::uint16_t>(current_thread->linear), shared};
  for (std::size_t k = 0; k < bytes; ++k) {
    byte_history& history = history_of(reinterpret_cast<std::uintptr_t>(address) + k);
    if (const problem found = check_byte(history, now, is_write); found.what != nullptr) return found;
  }
  return {};
}

} // namespace detail

} // namespace sinq_emulation
