#pragma once

/// The fastest that this machine reads and multiplies, as loops that do nothing else.

#include <sinq/core/isa.hpp>
#include <sinq/core/parallel.hpp>
#include <sinq/core/types.hpp>

#include <span>
#include <string_view>
#include <vector>

namespace sinq_bench {

/// Streams in which `read` walks through memory: a core keeps more lines on their way than one prefetcher asks for.
inline constexpr std::size_t most_streams = 16;

/// Reads every cache line once. @param streams  1 or most_streams @pre memory starts on a cache line
void read(std::span<const sinq::byte> memory, std::size_t streams, sinq::executor& threads);

/// Each thread reads its own part of memory again and again. @pre memory starts on a cache line
void read_again(std::span<const sinq::byte> memory, std::size_t times, sinq::executor& threads);

/// What is multiplied.
enum class arithmetic : std::uint8_t { f32, int8, bf16 };

/// A loop of products in registers.
struct peak {
  std::string_view name;
  arithmetic kind;
  double products; ///< of a step: multiplications, each with the addition of its result
  void (*loop)(std::size_t steps);
};

/// Peaks of the instructions that this processor has and that the instruction set in use allows; of each kind, the
/// fastest one is the last.
[[nodiscard]] const std::vector<peak>& peaks();

/// The fastest of a kind, or nullptr.
[[nodiscard]] const peak* fastest(arithmetic kind);

/// Steps that take about so long, or longer, as tried here and now.
[[nodiscard]] std::size_t steps_of(const peak& which, double seconds);

/// Runs the loop on each of the threads.
void run(const peak& which, std::size_t steps, sinq::executor& threads);

} // namespace sinq_bench
