#pragma once

#include <sinq/core/parallel.hpp>

namespace engine {

/// Calls f(m) for the rows 0 .. count - 1, some of them at once on each thread.
template <class F>
void for_rows(sinq::executor& threads, std::size_t count, F&& f) {
  constexpr std::size_t some = 16;
  // which cannot fail, as f has no result
  (void)sinq::parallel_for(threads, count, some, [&](std::size_t begin, std::size_t end) -> sinq::result<void> {
    for (std::size_t m = begin; m < end; ++m) f(m);
    return {};
  });
}

} // namespace engine
