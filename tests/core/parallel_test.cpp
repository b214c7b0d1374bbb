#include "support/catch.hpp"

#include <sinq/core/parallel.hpp>

#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

using sinq::errc;
using sinq::make_error;
using sinq::parallel_for;
using sinq::result;
using sinq::thread_pool;

namespace {

/// Runs tasks in reverse: what an executor is free to do.
class reverse_executor final : public sinq::executor {
public:
  [[nodiscard]] std::size_t concurrency() const override { return 1; }
  void run(std::size_t count, const std::function<void(std::size_t)>& task) override {
    while (count > 0) task(--count);
  }
};

std::vector<std::unique_ptr<sinq::executor>> executors() {
  std::vector<std::unique_ptr<sinq::executor>> all;
  all.push_back(std::make_unique<sinq::serial_executor>());
  all.push_back(std::make_unique<reverse_executor>());
  for (const std::size_t threads : {1u, 2u, 3u, 8u}) all.push_back(std::make_unique<thread_pool>(threads));
  return all;
}

} // namespace

TEST_CASE("an executor says how many tasks run at once") {
  CHECK(sinq::serial_executor{}.concurrency() == 1);
  CHECK(thread_pool{1}.concurrency() == 1);
  CHECK(thread_pool{5}.concurrency() == 5);
  CHECK(thread_pool{}.concurrency() >= 1);
  CHECK(&sinq::default_executor() == &sinq::default_executor());
}

TEST_CASE("each task is called once") {
  for (const auto& threads : executors())
    for (const std::size_t count : {0u, 1u, 2u, 7u, 1000u}) {
      std::vector<std::atomic<int>> calls(count);
      threads->run(count, [&](std::size_t i) { ++calls[i]; });
      for (const std::atomic<int>& n : calls) CHECK(n == 1);
    }
}

TEST_CASE("a pool serves many short calls") {
  thread_pool pool{4};
  std::atomic<std::size_t> sum = 0;
  for (int call = 0; call < 2000; ++call) pool.run(5, [&](std::size_t i) { sum += i; });
  CHECK(sum == 2000 * 10);
}

TEST_CASE("who has done its share does what is left of others'") {
  thread_pool pool{4};
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<int> others = 0;
  pool.run(40, [&](std::size_t i) {
    if (std::this_thread::get_id() != caller) ++others;
    if (i == 0) // of the caller, unless a worker was faster
      while (others < (std::this_thread::get_id() == caller ? 39 : 1)) std::this_thread::yield();
  });
  CHECK(others > 0);
}

TEST_CASE("a call from inside a task runs serially and ends") {
  thread_pool pool{4};
  thread_pool other{2};
  std::atomic<int> calls = 0;
  pool.run(6, [&](std::size_t) {
    const std::thread::id caller = std::this_thread::get_id();
    for (thread_pool* inner : {&pool, &other})
      inner->run(5, [&](std::size_t) {
        if (std::this_thread::get_id() == caller) ++calls;
      });
  });
  CHECK(calls == 6 * 2 * 5);
}

TEST_CASE("an exception in a task reaches the caller and the pool goes on") {
  for (const std::size_t threads : {1u, 2u, 4u}) {
    thread_pool pool{threads};
    for (int round = 0; round < 20; ++round) {
      CHECK_THROWS_AS(pool.run(50,
                               [](std::size_t i) {
                                 if (i == 20) throw std::runtime_error{"twenty"};
                               }),
                      std::runtime_error);
      std::atomic<int> calls = 0;
      pool.run(50, [&](std::size_t) { ++calls; });
      CHECK(calls == 50);
    }
  }
}

TEST_CASE("every task may throw at once") {
  thread_pool pool{4};
  for (int round = 0; round < 50; ++round)
    CHECK_THROWS_AS(pool.run(8, [](std::size_t) { throw std::logic_error{"all"}; }), std::logic_error);
}

TEST_CASE("two threads may call one pool at the same time") {
  thread_pool pool{3};
  std::atomic<std::size_t> total = 0;
  auto caller = [&] {
    for (int call = 0; call < 300; ++call) {
      std::atomic<std::size_t> mine = 0;
      pool.run(10, [&](std::size_t) { ++mine; });
      total += mine;
    }
  };
  std::thread other{caller};
  caller();
  other.join();
  CHECK(total == 2 * 300 * 10);
}

TEST_CASE("chunks depend on the grain alone") {
  using range = std::pair<std::size_t, std::size_t>;
  const std::set<range> expected{{0, 7}, {7, 14}, {14, 21}, {21, 23}};
  for (const auto& threads : executors()) {
    std::mutex mutex;
    std::set<range> chunks;
    const result<void> done = parallel_for(*threads, 23, 7, [&](std::size_t begin, std::size_t end) -> result<void> {
      const std::lock_guard lock{mutex};
      CHECK(chunks.emplace(begin, end).second);
      return {};
    });
    CHECK(done);
    CHECK(chunks == expected);
  }
}

TEST_CASE("no items are no chunks, and a grain of zero is one") {
  thread_pool pool{2};
  std::atomic<int> calls = 0;
  auto task = [&](std::size_t begin, std::size_t end) -> result<void> {
    if (end == begin + 1) ++calls;
    return {};
  };
  CHECK(parallel_for(pool, 0, 8, task));
  CHECK(calls == 0);
  CHECK(parallel_for(pool, 5, 0, task));
  CHECK(calls == 5);
}

TEST_CASE("the error of the lowest chunk wins, whatever the number of threads") {
  for (const auto& threads : executors())
    for (int round = 0; round < 20; ++round) {
      const result<void> done = parallel_for(*threads, 100, 1, [](std::size_t i, std::size_t) -> result<void> {
        if (i == 31 || i == 32 || i == 60) return make_error(errc::non_finite, "row ", i);
        return {};
      });
      REQUIRE_FALSE(done);
      CHECK(done.error().code == errc::non_finite);
      CHECK(done.error().message == "row 31");
    }
}

TEST_CASE("after an error the chunks above it are not begun") {
  sinq::serial_executor serial;
  int calls = 0;
  const result<void> done = parallel_for(serial, 100, 1, [&](std::size_t i, std::size_t) -> result<void> {
    ++calls;
    if (i == 3) return make_error(errc::io, "stop");
    return {};
  });
  CHECK_FALSE(done);
  CHECK(calls == 4);
}

TEST_CASE("progress rises to one and is told by one thread at a time") {
  for (const auto& threads : executors()) {
    double last = 0.0;
    int reports = 0;
    std::atomic<int> inside = 0;
    bool rising = true;
    bool alone = true;
    const result<void> done = parallel_for(
        *threads, 50, 3, [](std::size_t, std::size_t) { return result<void>{}; },
        [&](double now) {
          alone = alone && ++inside == 1;
          rising = rising && now > last;
          last = now;
          ++reports;
          --inside;
          return true;
        });
    CHECK(done);
    CHECK(rising);
    CHECK(alone);
    CHECK(last == 1.0);
    CHECK(reports == 17);
  }
}

TEST_CASE("the progress callback can cancel, and is not called again") {
  for (const auto& threads : executors()) {
    int reports = 0;
    const result<void> done = parallel_for(
        *threads, 1000, 1, [](std::size_t, std::size_t) { return result<void>{}; },
        [&](double) { return ++reports < 5; });
    REQUIRE_FALSE(done);
    CHECK(done.error().code == errc::cancelled);
    CHECK(reports == 5);
  }
}
