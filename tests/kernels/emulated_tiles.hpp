#pragma once

/// The tile registers of AMX in plain C++, to test their kernels on machines without them.

#include <sinq/core/types.hpp>

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

namespace sinq_test {

struct emulated_tiles {
  static void configure() { configured() = true; }
  static void release() { configured() = false; }
  /// Whether kernels left the registers configured: threads that stop so would keep their power.
  static bool& configured() {
    static thread_local bool value = false;
    return value;
  }

  template <int Tile>
  static void zero() {
    tile<Tile>() = {};
  }
  template <int Tile>
  static void load(const void* from) {
    std::memcpy(tile<Tile>().data(), from, sizeof(registers));
  }
  template <int Tile>
  static void stream(const void* from) {
    load<Tile>(from);
  }
  template <int Tile>
  static void store(void* to) {
    std::memcpy(to, tile<Tile>().data(), sizeof(registers));
  }
  /// As hardware_tiles has it; sums of two products are rounded once each.
  template <int Sum, int A, int B>
  static void multiply() {
    for (std::size_t m = 0; m < 16; ++m)
      for (std::size_t n = 0; n < 16; ++n) {
        float sum = std::bit_cast<float>(tile<Sum>()[16 * m + n]);
        for (std::size_t k = 0; k < 16; ++k) {
          const std::uint32_t a = tile<A>()[16 * m + k], b = tile<B>()[16 * k + n];
          sum += low(a) * low(b);
          sum += high(a) * high(b);
        }
        tile<Sum>()[16 * m + n] = std::bit_cast<std::uint32_t>(sum);
      }
  }
  template <int Sum, int A, int B>
  static void multiply_bytes() {
    for (std::size_t m = 0; m < 16; ++m)
      for (std::size_t n = 0; n < 16; ++n)
        for (std::size_t k = 0; k < 16; ++k) {
          const auto a = std::bit_cast<std::array<std::int8_t, 4>>(tile<A>()[16 * m + k]);
          const auto b = std::bit_cast<std::array<std::uint8_t, 4>>(tile<B>()[16 * k + n]);
          for (std::size_t i = 0; i < 4; ++i) tile<Sum>()[16 * m + n] += static_cast<std::uint32_t>(a[i] * b[i]);
        }
  }

private:
  using registers = std::array<std::uint32_t, 256>;

  template <int Tile>
  static registers& tile() {
    static_assert(Tile >= 0 && Tile < 8);
    static thread_local registers all{};
    return all;
  }
  static float low(std::uint32_t pair) { return std::bit_cast<float>(pair << 16); }
  static float high(std::uint32_t pair) { return std::bit_cast<float>(pair & 0xffff0000u); }
};

} // namespace sinq_test
