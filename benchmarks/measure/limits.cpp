#include "limits.hpp"

#include "loops_neon.hpp"
#include "loops_x86.hpp"
#include "rounds.hpp"

#include <sinq/core/wide.hpp>

#include <algorithm>

namespace sinq_bench {

namespace {

/// A cache line, in as many registers as that takes.
using cache_line = std::uint64_t __attribute__((vector_size(64), may_alias));

constexpr std::size_t lines_at_once = 4;
constexpr std::size_t step_bytes = lines_at_once * sizeof(cache_line);

/// Reads Streams parts side by side; what is left of a whole number of steps in each is not read.
template <std::size_t Streams>
SINQ_INLINE void read_lines(const sinq::byte* from, std::size_t bytes) {
  const std::size_t part = bytes / Streams / step_bytes * step_bytes;
  cache_line sums[lines_at_once] = {};
  for (std::size_t i = 0; i < part; i += step_bytes)
    for (std::size_t s = 0; s < Streams; ++s)
      for (std::size_t k = 0; k < lines_at_once; ++k)
        sums[k] ^= *reinterpret_cast<const cache_line*>(from + s * part + i + k * sizeof(cache_line));
  asm volatile("" : : "m"(sums));
}

template <std::size_t Streams>
void read_plain(const sinq::byte* from, std::size_t bytes) {
  read_lines<Streams>(from, bytes);
}
#if SINQ_X86
template <std::size_t Streams>
SINQ_TARGET_AVX2 void read_avx2(const sinq::byte* from, std::size_t bytes) {
  read_lines<Streams>(from, bytes);
}
template <std::size_t Streams>
SINQ_TARGET_AVX512 void read_avx512(const sinq::byte* from, std::size_t bytes) {
  read_lines<Streams>(from, bytes);
}
#endif

using read_function = void (*)(const sinq::byte*, std::size_t);

template <std::size_t Streams>
read_function reader() {
#if SINQ_X86
  if (sinq::current_isa() >= sinq::isa::avx512) return read_avx512<Streams>;
  if (sinq::current_isa() >= sinq::isa::avx2) return read_avx2<Streams>;
#endif
  return read_plain<Streams>;
}

} // namespace

void read(std::span<const sinq::byte> memory, std::size_t streams, sinq::executor& threads) {
  const read_function read_part = streams == 1 ? reader<1>() : reader<most_streams>();
  constexpr std::size_t unit = most_streams * step_bytes;
  const std::size_t units = memory.size() / unit;
  const std::size_t grain = std::clamp<std::size_t>(units / threads.concurrency(), 1, (std::size_t{16} << 20) / unit);
  threads.run((units + grain - 1) / grain, [&](std::size_t n) {
    const std::size_t begin = n * grain;
    read_part(memory.data() + begin * unit, (std::min(begin + grain, units) - begin) * unit);
  });
}

void read_again(std::span<const sinq::byte> memory, std::size_t times, sinq::executor& threads) {
  const read_function read_part = reader<1>();
  const std::size_t part = memory.size() / threads.concurrency() / step_bytes * step_bytes;
  threads.run(threads.concurrency(), [&](std::size_t n) {
    for (std::size_t k = 0; k < times; ++k) read_part(memory.data() + n * part, part);
  });
}

const std::vector<peak>& peaks() {
  static const std::vector<peak> here = [] {
    std::vector<peak> found;
#if SINQ_X86 || defined(__aarch64__)
    add_peaks(found);
#endif
    return found;
  }();
  return here;
}

const peak* fastest(arithmetic kind) {
  const peak* last = nullptr;
  for (const peak& p : peaks())
    if (p.kind == kind) last = &p;
  return last;
}

std::size_t steps_of(const peak& which, double seconds) {
  constexpr std::size_t few = 1000;
  const double begin = seconds_now();
  which.loop(few);
  return static_cast<std::size_t>(seconds / std::max(seconds_now() - begin, 1e-6) * few) + few;
}

void run(const peak& which, std::size_t steps, sinq::executor& threads) {
  threads.run(threads.concurrency(), [&](std::size_t) { which.loop(steps); });
}

} // namespace sinq_bench
