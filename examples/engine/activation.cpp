#include "activation.hpp"

#include <sinq/core/isa.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

namespace engine {
namespace {

/// Sixteen lanes, which the compiler makes of whatever vectors the function that it is inlined into may use.
constexpr std::size_t lanes = 16;
using floats [[gnu::vector_size(lanes * sizeof(float))]] = float;
using words [[gnu::vector_size(lanes * sizeof(float))]] = std::uint32_t;

#define ENGINE_INLINE [[gnu::always_inline]] inline

/// e^x = 2^n e^r, r = x - n log 2 in [-log 2 / 2, log 2 / 2], e^r by its series; 2^-126 below that.
ENGINE_INLINE void exponential(floats& x) {
  constexpr float least = -87.0f, most = 88.0f;
  x = x < least ? floats{} + least : x > most ? floats{} + most : x;
  const floats shifted = x * 1.44269504f + 0x1.8p23f; // the lowest bits are n
  const floats n = shifted - 0x1.8p23f;
  const floats r = x - n * 0.693359375f + n * 2.12194440e-4f;
  floats series = floats{} + 1.0f / 720;
  for (const float factor : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) series = series * r + factor;
  words bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 23) + (127u << 23);
  floats power;
  std::memcpy(&power, &bits, sizeof power);
  x = series * power;
}

/// Calls f for lanes at a time, the last ones filled up with a value.
template <class F>
ENGINE_INLINE void for_lanes(std::span<float> x, float filling, F&& f) {
  floats some;
  std::size_t j = 0;
  for (; j + lanes <= x.size(); j += lanes) {
    std::memcpy(&some, x.data() + j, sizeof some);
    f(some, j, lanes);
  }
  if (j == x.size()) return;
  some = floats{} + filling;
  std::memcpy(&some, x.data() + j, (x.size() - j) * sizeof(float));
  f(some, j, x.size() - j);
}

struct softmax_loop {
  ENGINE_INLINE static void run(std::span<float> x) {
    constexpr float lowest = -std::numeric_limits<float>::infinity();
    floats highest = floats{} + lowest, sum{};
    for_lanes(x, lowest, [&](floats& some, std::size_t, std::size_t) { highest = some > highest ? some : highest; });
    float top = lowest;
    for (std::size_t n = 0; n < lanes; ++n) top = std::max(top, highest[n]);
    for_lanes(x, lowest, [&](floats& some, std::size_t j, std::size_t count) {
      some -= top;
      exponential(some);
      std::memcpy(x.data() + j, &some, count * sizeof(float));
      for (std::size_t n = count; n < lanes; ++n) some[n] = 0;
      sum += some;
    });
    float total = 0;
    for (std::size_t n = 0; n < lanes; ++n) total += sum[n];
    for (float& value : x) value *= 1 / total;
  }
};

struct silu_loop {
  ENGINE_INLINE static void run(std::span<float> gate, std::span<const float> up) {
    for_lanes(gate, 0, [&](floats& some, std::size_t j, std::size_t count) {
      floats power = -some, factor{};
      exponential(power);
      std::memcpy(&factor, up.data() + j, count * sizeof(float));
      some = some / (1 + power) * factor;
      std::memcpy(gate.data() + j, &some, count * sizeof(float));
    });
  }
};

#if defined(__x86_64__)
template <class Loop, class... Args>
[[gnu::target("avx2,fma")]] void run_avx2(Args... args) {
  Loop::run(args...);
}
template <class Loop, class... Args>
[[gnu::target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]] void run_avx512(Args... args) {
  Loop::run(args...);
}
#endif

/// Loop::run(args...) on the vectors that sinq uses.
template <class Loop, class... Args>
void run(Args... args) {
#if defined(__x86_64__)
  const std::size_t width = vector_floats(sinq::current_isa());
  if (width == 16) return run_avx512<Loop>(args...);
  if (width == 8) return run_avx2<Loop>(args...);
#endif
  Loop::run(args...);
}

} // namespace

void softmax(std::span<float> x) {
  run<softmax_loop>(x);
}

void gate_with_silu(std::span<float> gate, std::span<const float> up) {
  SINQ_ASSERT(gate.size() == up.size());
  run<silu_loop>(gate, up);
}

} // namespace engine
