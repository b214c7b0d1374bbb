#pragma once

/// Launches: the blocks of a grid one after the other, each thread of a block a fiber, in an order that a test chooses.

#include "fiber.hpp"
#include "vector_types.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace sinq_emulation {

/// A line of source. As a default argument, current() is the line of the call (clang++ 14 has no std::source_location).
struct place {
  const char* file = "";
  int line = 0;
  static constexpr place current(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
  friend bool operator==(const place& a, const place& b) {
    return a.line == b.line && std::strcmp(a.file, b.file) == 0;
  }
};

/// What a kernel did wrong.
struct fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// In which order blocks and threads run. Greedy: each warp goes as far as it can before the next one starts; so that
/// of any two accesses between two barriers each comes first in `forward` or in `reverse`.
struct schedule {
  enum class order { forward, reverse, shuffled };
  order threads = order::forward;
  std::uint64_t seed = 0; ///< of shuffled
};

namespace detail {
inline schedule current_schedule;

/// Is told of each access to memory where a program is built to watch them: see races/watch.hpp.
inline void (*access_watcher)(const void* address, std::size_t bytes, bool is_write) = nullptr;
} // namespace detail

[[nodiscard]] inline std::vector<schedule> all_schedules() {
  using enum schedule::order;
  return {{forward}, {reverse}, {shuffled, 1}, {shuffled, 2}};
}

/// Those that every kernel test goes through; results must be the same bits under each. What a watch over accesses
/// finds does not depend on the schedule: there, one is enough.
[[nodiscard]] inline std::vector<schedule> schedules() {
  return detail::access_watcher != nullptr ? std::vector<schedule>{{}} : all_schedules();
}

/// The schedule of all launches until the end of a scope.
class scoped_schedule {
public:
  explicit scoped_schedule(const schedule& next) : before_{std::exchange(detail::current_schedule, next)} {}
  scoped_schedule(const scoped_schedule&) = delete;
  scoped_schedule& operator=(const scoped_schedule&) = delete;
  ~scoped_schedule() { detail::current_schedule = before_; }

private:
  schedule before_;
};

/// As between <<< and >>>.
struct launch_shape {
  dim3 grid;
  dim3 block;
  std::size_t dynamic_shared_bytes = 0;
};

inline constexpr unsigned warp_size = 32;

namespace detail {

/// What the lanes of a warp hand to each other in one collective operation.
struct exchange_board {
  static constexpr std::size_t most_words = 6;
  std::array<std::array<std::uint32_t, most_words>, warp_size> words{};
  const char* operation = nullptr;
  place where;
  std::uint32_t mask = 0;
  std::uint32_t arrived = 0;
  std::uint32_t readers = 0; ///< lanes that may still read it
};

/// Boards are used again: one is free when no lane reads it.
struct warp_state {
  std::vector<std::unique_ptr<exchange_board>> boards;
  std::vector<exchange_board*> open;             ///< one for each mask that lanes wait for
  std::array<exchange_board*, warp_size> held{}; ///< by lane: what its last collective operation left
  std::uint32_t synchronized = 0;                ///< how often the whole warp went through __syncwarp
};

struct pending_copy {
  void* target = nullptr;
  const void* source = nullptr;
  unsigned bytes = 0;
  bool filled = true;
};

struct thread_state {
  enum class standing { ready, at_barrier, at_collective, done };
  uint3 index;
  unsigned linear = 0;
  standing now = standing::ready;
  place where;
  std::vector<std::vector<pending_copy>> copies; ///< groups of cp.async, the last one still open
};

struct shared_array {
  const void* key = nullptr;
  std::size_t offset = 0;
  std::size_t bytes = 0;
};

struct block_state {
  dim3 grid;
  dim3 block;
  uint3 index;
  std::vector<thread_state> threads;
  std::vector<warp_state> warps;
  std::uint32_t barriers = 0; ///< how often all threads went through __syncthreads
  std::uint32_t first_interval_of_launch = 0;
  std::uint32_t first_interval = 0; ///< from one barrier to the next, numbered through all blocks and launches
  std::uint32_t interval = 0;
  int votes = 0; ///< of __syncthreads_or and its like, since the last barrier
  std::array<int, 2> vote_result{};
  std::vector<shared_array> arrays;
  std::size_t shared_bytes = 0;
  std::size_t dynamic_shared_bytes = 0;
  std::string failure;
  std::function<void()> kernel;
};

inline block_state* current_block = nullptr;
inline thread_state* current_thread = nullptr;
inline std::uint32_t last_interval = 0;

/// Stacks are kept from launch to launch.
[[nodiscard]] inline fiber& fiber_of(unsigned thread) {
  static std::vector<std::unique_ptr<fiber>> fibers;
  while (fibers.size() <= thread) fibers.push_back(std::make_unique<fiber>());
  return *fibers[thread];
}

inline void suspend(thread_state::standing now, const place& where) {
  current_thread->now = now;
  current_thread->where = where;
  fiber_of(current_thread->linear).suspend();
}

[[nodiscard]] inline std::string describe(const place& where) {
  const std::string file = where.file;
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(where.line);
}
[[nodiscard]] inline std::string describe(const uint3& index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " + std::to_string(index.z) + ")";
}

[[nodiscard]] inline std::string text_of(const char* text) {
  return text;
}
[[nodiscard]] inline std::string text_of(unsigned number) {
  return std::to_string(number);
}
[[nodiscard]] inline std::string text_of(const place& where) {
  return describe(where);
}

/// Ends the launch with a fault; the thread does not go on. `what` are the pieces of a sentence: its words, unlike
/// strings of the caller, leave nothing behind on the stack that is never unwound.
template <class... What>
[[noreturn]] void fail(const place& where, const What&... what) {
  [&]() {
    current_block->failure =
        (text_of(what) + ...) + " at " + describe(where) + ", thread " + describe(current_thread->index);
  }();
  for (;;) suspend(thread_state::standing::done, where);
}

[[nodiscard]] inline warp_state& current_warp() {
  return current_block->warps[current_thread->linear / warp_size];
}
[[nodiscard]] inline unsigned current_lane() {
  return current_thread->linear % warp_size;
}

} // namespace detail

} // namespace sinq_emulation
