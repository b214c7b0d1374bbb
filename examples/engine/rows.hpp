#pragma once

#include <sinq/core/parallel.hpp>

namespace engine {

/// Calls f(m) for the rows 0 .. count - 1, some of them at once on each thread.
template <class F>
void for_rows(sinq::executor& threads, std::size_t count, F&& f) {
  constexpr std::size_t some = 16;
  threads.run((count + some - 1) / some, [&](std::size_t n) {
    for (std::size_t m = n * some; m < std::min(count, (n + 1) * some); ++m) f(m);
  });
}

} // namespace engine
