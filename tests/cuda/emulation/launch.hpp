#pragma once

/// Runs a launch to its end or to its first fault.

#include "shared_memory.hpp"

namespace sinq_emulation {

namespace detail {

/// The block's threads in the order in which they are to be tried; greedy orders list warp by warp.
class thread_order {
public:
  thread_order(unsigned threads, std::mt19937_64& random) : order_(threads), random_{random} {
    for (unsigned k = 0; k < threads; ++k) order_[k] = k;
    if (current_schedule.threads == schedule::order::reverse) std::reverse(order_.begin(), order_.end());
    next_interval();
  }
  /// After a barrier everyone is dealt a new place.
  void next_interval() {
    if (current_schedule.threads == schedule::order::shuffled) std::shuffle(order_.begin(), order_.end(), random_);
  }
  /// How many threads run round and round until all of them wait, before the next ones start.
  [[nodiscard]] std::size_t stride() const {
    return current_schedule.threads == schedule::order::shuffled ? order_.size() : warp_size;
  }
  [[nodiscard]] const std::vector<unsigned>& threads() const { return order_; }

private:
  std::vector<unsigned> order_;
  std::mt19937_64& random_;
};

/// What the fiber of each thread does.
inline void run_thread() {
  current_block->kernel();
  suspend(thread_state::standing::done, {});
}

[[noreturn]] inline void report(const std::string& what) {
  throw fault{what + ", block " + describe(current_block->index)};
}

/// Runs each of some threads as long as any of them can.
inline void run_until_stuck(const unsigned* begin, const unsigned* end) {
  for (bool moved = true; moved;) {
    moved = false;
    for (const unsigned* k = begin; k != end; ++k) {
      thread_state& thread = current_block->threads[*k];
      if (thread.now != thread_state::standing::ready) continue;
      moved = true;
      current_thread = &thread;
      fiber_of(thread.linear).resume();
      current_thread = nullptr;
      if (!current_block->failure.empty()) report(current_block->failure);
    }
  }
}

/// Everyone stands: says what is wrong, or lets them pass the barrier.
/// @return  whether all threads are at their end
[[nodiscard]] inline bool pass_barrier() {
  using enum thread_state::standing;
  const thread_state* waiting = nullptr;
  std::size_t waiting_count = 0;
  for (const thread_state& thread : current_block->threads) {
    if (thread.now == at_collective)
      report("lanes of a warp do not arrive at the collective operation at " + describe(thread.where) +
             ", where thread " + describe(thread.index) + " waits");
    if (thread.now != at_barrier) continue;
    ++waiting_count;
    if (waiting != nullptr && !(waiting->where == thread.where))
      report("threads wait at different barriers, " + describe(waiting->where) + " and " + describe(thread.where));
    waiting = &thread;
  }
  if (waiting_count == 0) return true;
  if (waiting_count != current_block->threads.size())
    report("only " + std::to_string(waiting_count) + " threads reach the barrier at " + describe(waiting->where));
  for (thread_state& thread : current_block->threads) thread.now = ready;
  ++current_block->barriers;
  current_block->interval = ++last_interval;
  current_block->vote_result[current_block->barriers % 2] = std::exchange(current_block->votes, 0);
  return false;
}

inline void begin_block(block_state& block, unsigned number) {
  const dim3 grid = block.grid;
  const dim3 shape = block.block;
  block.index = {number % grid.x, number / grid.x % grid.y, number / (grid.x * grid.y)};
  block.first_interval = block.interval = ++last_interval;
  block.arrays.clear();
  block.shared_bytes = 0;
  block.warps.clear();
  block.warps.resize((block.threads.size() + warp_size - 1) / warp_size);
  for (unsigned k = 0; k < block.threads.size(); ++k) {
    thread_state& thread = block.threads[k];
    thread = {};
    thread.index = {k % shape.x, k / shape.x % shape.y, k / (shape.x * shape.y)};
    thread.linear = k;
    thread.copies.resize(1);
    fiber_of(k).prepare(&run_thread);
  }
  begin_shared_memory();
}

inline void run_block(block_state& block, unsigned number, std::mt19937_64& random) {
  begin_block(block, number);
  thread_order order{static_cast<unsigned>(block.threads.size()), random};
  do {
    const std::vector<unsigned>& threads = order.threads();
    for (std::size_t k = 0; k < threads.size(); k += order.stride())
      run_until_stuck(threads.data() + k, threads.data() + std::min(k + order.stride(), threads.size()));
    order.next_interval();
  } while (!pass_barrier());
  if (!shared_strips_untouched(block)) report("shared memory was written outside of its arrays");
}

inline void check_shape(const launch_shape& shape) {
  constexpr unsigned most_threads = 1024;
  const auto count = [](dim3 d) { return std::uint64_t{d.x} * d.y * d.z; };
  if (count(shape.block) == 0 || count(shape.block) > most_threads) throw fault{"a block has 1 to 1024 threads"};
  if (count(shape.grid) == 0 || shape.grid.x > 0x7fffffffU || shape.grid.y > 0xffffU || shape.grid.z > 0xffffU)
    throw fault{"a grid has 1 to 2^31 - 1, 65535 and 65535 blocks"};
  if (shape.dynamic_shared_bytes > dynamic_shared_limit) throw fault{"more than 227 KiB of dynamic shared memory"};
}

} // namespace detail

/// Runs `kernel()` once for each thread of each block, as `current schedule` says.
/// Throws fault at the first thing that CUDA leaves undefined; the threads that it stops are not unwound.
template <class Kernel>
void launch(const launch_shape& shape, Kernel&& kernel) {
  detail::check_shape(shape);
  detail::block_state block;
  block.grid = shape.grid;
  block.block = shape.block;
  block.dynamic_shared_bytes = shape.dynamic_shared_bytes;
  block.threads.resize(std::size_t{shape.block.x} * shape.block.y * shape.block.z);
  block.kernel = std::ref(kernel);
  block.first_interval_of_launch = detail::last_interval + 1;

  std::vector<unsigned> order(std::size_t{shape.grid.x} * shape.grid.y * shape.grid.z);
  for (unsigned k = 0; k < order.size(); ++k) order[k] = k;
  std::mt19937_64 random{detail::current_schedule.seed};
  if (detail::current_schedule.threads == schedule::order::reverse) std::reverse(order.begin(), order.end());
  if (detail::current_schedule.threads == schedule::order::shuffled) std::shuffle(order.begin(), order.end(), random);

  struct running {
    explicit running(detail::block_state& started) { detail::current_block = &started; }
    running(const running&) = delete;
    running& operator=(const running&) = delete;
    ~running() {
      detail::current_block = nullptr;
      detail::current_thread = nullptr;
      allow_memory(detail::shared_pool(), detail::shared_pool_bytes);
    }
  } const scope{block};
  for (const unsigned number : order) detail::run_block(block, number, random);
}

} // namespace sinq_emulation
