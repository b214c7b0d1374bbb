#pragma once

#include "error.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define SINQ_X86 1
#else
#define SINQ_X86 0
#endif
/// Whether vectors of IEEE 754 halves become floats by an instruction; clang 14 cannot be told so for one function.
#if defined(__aarch64__) || (SINQ_X86 && !defined(__clang__))
#define SINQ_HALF_INSTRUCTION 1
#else
#define SINQ_HALF_INSTRUCTION 0
#endif
#if SINQ_X86 && defined(__linux__)
#define SINQ_AMX 1
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#define SINQ_AMX 0
#endif

namespace sinq {

/// Instruction sets that the hot loops are compiled for; which one runs is chosen at run time.
/// All give the same bits.
enum class isa : std::uint8_t {
  scalar, ///< one element at a time, in whatever the compiler was told to use
  neon,   ///< AArch64: 4 floats at a time
  avx2,   ///< x86-64 with AVX2, FMA and F16C: 8 floats at a time
  avx512, ///< x86-64 with AVX-512 F, BW, DQ and VL: 16 floats at a time
  amx,    ///< the same with tiles of AMX for products of many tokens, where Linux grants them
};

namespace detail {

#if SINQ_X86
[[nodiscard]] inline bool has_avx2() {
#if SINQ_HALF_INSTRUCTION
  if (__builtin_cpu_supports("f16c") == 0) return false;
#endif
  return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
}
[[nodiscard]] inline bool has_avx512() {
  return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
         __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0;
}
#endif
#if SINQ_AMX
/// Whether the processor has tiles of bf16 and bytes, the system saves them, and this process may use them: asks for
/// it, once.
[[nodiscard]] inline bool has_amx() {
  static const bool granted = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned tiles = 1u << 22 | 1u << 24 | 1u << 25, osxsave = 1u << 27; // of bf16, any, of bytes
    if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & osxsave) == 0) return false;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & tiles) != tiles) return false;
    constexpr unsigned tile_state = 3u << 17;
    asm volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    constexpr long request_permission = 0x1023, tile_data = 18;
    return (a & tile_state) == tile_state && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  }();
  return granted;
}
#endif

} // namespace detail

/// One line of the table of instruction sets.
struct isa_info {
  isa id;
  std::string_view name; ///< as SINQ_ISA spells it
  std::size_t floats;    ///< of a vector
  bool (*is_here)();     ///< whether this processor has it and the library was compiled for it
};

/// All instruction sets, in the order of the enumeration; the last one that is here is the fastest.
inline constexpr std::array isa_table {
  isa_info{isa::scalar, "scalar", 1, [] { return true; }},
#if defined(__aarch64__)
      isa_info{isa::neon, "neon", 4, [] { return true; }},
#else
      isa_info{isa::neon, "neon", 4, [] { return false; }},
#endif
#if SINQ_X86
      isa_info{isa::avx2, "avx2", 8, [] { return detail::has_avx2(); }},
      isa_info{isa::avx512, "avx512", 16, [] { return detail::has_avx512(); }},
#else
      isa_info{isa::avx2, "avx2", 8, [] { return false; }}, isa_info{isa::avx512, "avx512", 16, [] { return false; }},
#endif
#if SINQ_AMX
      isa_info{isa::amx, "amx", 16, [] { return detail::has_avx512() && detail::has_amx(); }},
#else
      isa_info{isa::amx, "amx", 16, [] { return false; }},
#endif
};

/// Floats of a vector.
[[nodiscard]] constexpr std::size_t vector_floats(isa id) {
  return isa_table[static_cast<std::size_t>(id)].floats;
}
[[nodiscard]] constexpr std::string_view to_string(isa id) {
  return isa_table[static_cast<std::size_t>(id)].name;
}
/// Whether loops can run on it here.
[[nodiscard]] inline bool is_here(isa id) {
  return isa_table[static_cast<std::size_t>(id)].is_here();
}

/// The instruction set of that name.
/// @errors  errc::invalid_argument (no such name), errc::unsupported (this processor lacks it); names those that are
/// here
[[nodiscard]] inline result<isa> find_isa(std::string_view name) {
  std::string here;
  for (const isa_info& entry : isa_table)
    if (entry.is_here()) here.append(here.empty() ? "" : ", ").append(entry.name);
  for (const isa_info& entry : isa_table) {
    if (entry.name != name) continue;
    if (entry.is_here()) return entry.id;
    return make_error(errc::unsupported, "instruction set ", name, " is not there on this machine, which has ", here);
  }
  return make_error(errc::invalid_argument, "instruction set \"", name, "\" is unknown; this machine has ", here);
}

namespace detail {

/// What the environment asks for by SINQ_ISA, or else the fastest that is here. Asked once.
[[nodiscard]] inline const result<isa>& isa_of_environment() {
  static const result<isa> chosen = []() -> result<isa> {
    const char* const asked = std::getenv("SINQ_ISA");
    if (asked != nullptr && *asked != '\0') {
      result<isa> found = find_isa(asked);
      return found ? found : std::move(found).error().in("SINQ_ISA");
    }
    isa fastest = isa::scalar;
    for (const isa_info& entry : isa_table)
      if (entry.is_here()) fastest = entry.id;
    return fastest;
  }();
  return chosen;
}

/// The instruction set in use.
[[nodiscard]] inline std::atomic<isa>& isa_in_use() {
  static std::atomic<isa> used{isa_of_environment() ? *isa_of_environment() : isa::scalar};
  return used;
}

} // namespace detail

/// The instruction set that loops run on: what SINQ_ISA asks for, the fastest that is here, or what use_isa was told.
[[nodiscard]] inline isa current_isa() {
  return detail::isa_in_use().load(std::memory_order_relaxed);
}
/// Whether the environment's SINQ_ISA, if it is set, can be obeyed; every door of the library asks this first.
/// @errors  those of find_isa
[[nodiscard]] inline result<void> check_isa() {
  if (const result<isa>& chosen = detail::isa_of_environment(); !chosen) return chosen.error();
  return {};
}
/// Makes loops that start from now on run on that instruction set, in the whole process. @pre is_here(id)
inline void use_isa(isa id) {
  SINQ_ASSERT(is_here(id));
  detail::isa_in_use().store(id, std::memory_order_relaxed);
}

} // namespace sinq
