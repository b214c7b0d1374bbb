#pragma once

#include "isa.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace sinq {

/// Runs independent tasks; replace it to use an engine's own threads.
/// Tasks write to disjoint memory and never depend on their order, so results are the same for every executor.
class executor {
public:
  executor() = default;
  executor(const executor&) = delete;
  executor& operator=(const executor&) = delete;
  virtual ~executor() = default;

  /// How many tasks run at once at most, >= 1.
  [[nodiscard]] virtual std::size_t concurrency() const = 0;
  /// Calls task(0) .. task(count - 1), each once, and returns when all have ended.
  /// If tasks throw, one of the exceptions is rethrown here after the others have ended.
  virtual void run(std::size_t count, const std::function<void(std::size_t)>& task) = 0;
};

/// Runs every task in the calling thread, in order.
class serial_executor final : public executor {
public:
  [[nodiscard]] std::size_t concurrency() const override { return 1; }
  void run(std::size_t count, const std::function<void(std::size_t)>& task) override {
    for (std::size_t i = 0; i < count; ++i) task(i);
  }
};

/// A persistent pool: `threads` - 1 workers and the calling thread. Each begins with its own share of the tasks, the
/// same in every call, so that what it touched in one is in its cache in the next; who has done it helps the others.
/// Between calls a worker looks out for the next one for 50 us, so that calls in close succession start at once, then
/// sleeps; where there are more threads than the machine has, it sleeps at once. A call ends without the workers that
/// were still asleep. Calls from several threads take turns; a call from inside a task runs serially.
class thread_pool final : public executor {
public:
  /// @param threads  in all, the caller included; 0 means one for each hardware thread
  explicit thread_pool(std::size_t threads = 0) {
    const std::size_t here = std::max(1u, std::thread::hardware_concurrency());
    if (threads == 0) threads = here;
    if (threads > here) patience_ = std::chrono::microseconds{0};
    shares_ = std::vector<share>(threads);
    workers_.reserve(threads - 1);
    try {
      for (std::size_t i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
    } catch (...) {
      stop();
      throw;
    }
  }
  ~thread_pool() override { stop(); }

  [[nodiscard]] std::size_t concurrency() const override { return workers_.size() + 1; }

  void run(std::size_t count, const std::function<void(std::size_t)>& task) override {
    if (count <= 1 || workers_.empty() || inside_) {
      for (std::size_t i = 0; i < count; ++i) task(i);
      return;
    }
    const std::lock_guard turn{turn_};
    task_ = &task;
    for (std::size_t i = 0; i < shares_.size(); ++i) {
      shares_[i].next.store(i * count / shares_.size(), std::memory_order_relaxed);
      shares_[i].end = (i + 1) * count / shares_.size();
    }
    failure_ = nullptr;
    gate_.store((gate_.load() / one_call + 1) * one_call + open);
    if (sleeping_.load() != 0) notify(wake_);
    drain(0);
    gate_.fetch_and(~open);
    const auto all_left = [this] { return gate_.load() % one_call == 0; };
    if (!look_out(all_left)) {
      std::unique_lock lock{mutex_};
      waiting_.store(true);
      done_.wait(lock, all_left);
      waiting_.store(false);
    }
    if (failure_) std::rethrow_exception(failure_);
  }

private:
  /// Tasks of one thread, unless others come first.
  struct alignas(64) share {
    std::atomic<std::size_t> next{0};
    std::size_t end = 0;
  };

  /// Does the tasks of a thread's share, then those that are left of others'.
  void drain(std::size_t thread) {
    inside_ = true;
    try {
      for (std::size_t n = 0; n < shares_.size(); ++n) {
        share& from = shares_[(thread + n) % shares_.size()];
        while (from.next.load(std::memory_order_relaxed) < from.end)
          if (const std::size_t i = from.next.fetch_add(1, std::memory_order_relaxed); i < from.end) (*task_)(i);
      }
    } catch (...) {
      const std::lock_guard lock{mutex_};
      if (!failure_) failure_ = std::current_exception();
      for (share& left : shares_) left.next.store(left.end, std::memory_order_relaxed);
    }
    inside_ = false;
  }
  /// Waits for a condition as long as a thread looks out; whether it came true.
  template <class Condition>
  [[nodiscard]] bool look_out(Condition&& condition) const {
    const auto end = std::chrono::steady_clock::now() + patience_;
    do {
      for (int n = 0; n < 16; ++n) {
        if (condition()) return true;
#if SINQ_X86
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        asm volatile("yield");
#endif
      }
    } while (std::chrono::steady_clock::now() < end);
    return condition();
  }
  void work(std::size_t thread) {
    for (std::uint64_t seen = 0; !stopping_.load();) {
      const auto called = [&] { return gate_.load() / one_call != seen; };
      if (!look_out(called)) {
        std::unique_lock lock{mutex_};
        sleeping_.fetch_add(1);
        wake_.wait(lock, [&] { return stopping_.load() || called(); });
        sleeping_.fetch_sub(1);
      }
      if (!enter(seen)) continue;
      drain(thread);
      const bool last = gate_.fetch_sub(one_worker) % one_call == one_worker;
      if (last && waiting_.load()) notify(done_);
    }
  }
  /// Joins the present call, unless it is over already.
  [[nodiscard]] bool enter(std::uint64_t& seen) {
    std::uint64_t gate = gate_.load();
    do {
      seen = gate / one_call;
      if ((gate & open) == 0) return false;
    } while (!gate_.compare_exchange_weak(gate, gate + one_worker));
    return true;
  }
  /// Wakes who has said that it sleeps; the mutex is what it holds between its last look and its sleep.
  void notify(std::condition_variable& sleeper) {
    { const std::lock_guard lock{mutex_}; }
    sleeper.notify_all();
  }
  void stop() {
    stopping_.store(true);
    notify(wake_);
    for (std::thread& worker : workers_) worker.join();
  }

  /// Parts of the gate: whether workers may enter the present call, how many are inside, how many calls there were.
  static constexpr std::uint64_t open = 1, one_worker = 2, one_call = 1 << 20;

  static inline thread_local bool inside_ = false;
  std::vector<share> shares_; ///< of the caller and the workers
  std::vector<std::thread> workers_;
  std::mutex turn_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::exception_ptr failure_;
  std::chrono::microseconds patience_{50};
  const std::function<void(std::size_t)>* task_ = nullptr;
  std::atomic<std::size_t> sleeping_{0};
  std::atomic<bool> waiting_{false}; ///< the caller sleeps until the last worker has left
  std::atomic<bool> stopping_{false};
  alignas(64) std::atomic<std::uint64_t> gate_{0};
};

/// The pool that is used where no executor is given: one thread for each hardware thread, started at first use.
[[nodiscard]] inline executor& default_executor() {
  static thread_pool pool;
  return pool;
}

/// Told how much is done, from 0 to 1, never from two threads at once; returning false asks to stop,
/// which ends the operation with errc::cancelled.
using progress_callback = std::function<bool(double done)>;

/// Where and how a long operation runs.
struct run_options {
  executor* threads = nullptr;  ///< nullptr: default_executor()
  progress_callback progress{}; ///< empty: nobody is told

  [[nodiscard]] executor& on() const { return threads != nullptr ? *threads : default_executor(); }
};

/// The callback of one part of a longer operation: what the part calls 0 and 1 is `begin` and `end` of the whole.
/// @param whole  borrowed
[[nodiscard]] inline progress_callback part_of(const progress_callback& whole, double begin, double end) {
  if (!whole) return {};
  return [&whole, begin, end](double done) { return whole(begin + done * (end - begin)); };
}

/// Calls task(begin, end) over [0, count) in chunks of at most `grain`, reports progress after each chunk,
/// and stops early with the first error (that of the lowest chunk, whatever the number of threads) or when cancelled.
/// The chunks depend on `grain` alone, never on the number of threads.
template <class Task>
[[nodiscard]] result<void> parallel_for(executor& threads, std::size_t count, std::size_t grain, Task&& task,
                                        const progress_callback& progress = {}) {
  grain = std::max<std::size_t>(1, grain);
  const std::size_t chunks = count / grain + (count % grain != 0 ? 1 : 0);
  std::mutex mutex;
  std::size_t done = 0;
  std::size_t failed_chunk = chunks;
  error failure;
  bool cancelled = false;
  std::atomic<std::size_t> stop_at{chunks};
  threads.run(chunks, [&](std::size_t chunk) {
    if (chunk >= stop_at.load(std::memory_order_relaxed)) return;
    const std::size_t begin = chunk * grain;
    result<void> outcome = task(begin, std::min(count, begin + grain));
    if (outcome && !progress) return;
    const std::lock_guard lock{mutex};
    ++done;
    if (!outcome && chunk < failed_chunk) {
      failed_chunk = chunk;
      failure = std::move(outcome).error();
      stop_at.store(std::min(chunk, stop_at.load()), std::memory_order_relaxed);
    }
    if (progress && !cancelled && !progress(static_cast<double>(done) / static_cast<double>(chunks))) {
      cancelled = true;
      stop_at.store(0, std::memory_order_relaxed);
    }
  });
  if (cancelled) return make_error(errc::cancelled, "cancelled by the progress callback");
  if (failed_chunk < chunks) return failure;
  return {};
}

} // namespace sinq
