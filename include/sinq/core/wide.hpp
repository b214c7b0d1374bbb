#pragma once

#include "config.hpp"
#include "isa.hpp"

#include <cstddef>
#include <cstdint>
#include <utility>

/// Loops that are written once, over vectors of W elements, and compiled for every instruction set:
///
///   struct halve {                                                   // a loop: run<W> for any power of two W
///     template <std::size_t W>
///     SINQ_INLINE static void run(const float* from, float* to, std::size_t n) {
///       vec<float, W> x;
///       for (std::size_t j = 0; j < n; j += W) load(from + j, x), store(x * 0.5f, to + j);
///     }
///   };
///   detail::run_wide<halve>(from, to, n);                            // W = 1, 4, 8 or 16: that of current_isa()
///
/// Everything that a loop calls must be SINQ_INLINE, or it is compiled for the caller's flags alone. Vectors are passed
/// by reference: their calling convention depends on flags. A loop with a product that enters a sum stands between
/// SINQ_SEPARATE_ROUNDING_BEGIN and _END, because clang decides there, and g++ in the function that the loop is inlined
/// into, whether the two are fused.
#define SINQ_INLINE __attribute__((always_inline)) inline

namespace sinq::detail {

template <class T, std::size_t W>
struct vector_type {
  using type __attribute__((vector_size(W * sizeof(T)))) = T;
};

/// W elements; operators work element by element, and with a scalar on either side.
template <class T, std::size_t W>
using vec = typename vector_type<T, W>::type;

/// Reads as many elements as a vector has, from an address of any alignment.
template <class Vector, class T>
SINQ_INLINE void load(const T* from, Vector& to) {
  __builtin_memcpy(&to, from, sizeof to);
}
/// Writes them.
template <class Vector, class T>
SINQ_INLINE void store(const Vector& from, T* to) {
  __builtin_memcpy(to, &from, sizeof from);
}

template <std::size_t Half, class Vector, std::size_t... Lane>
SINQ_INLINE void swap_halves(const Vector& from, Vector& to, std::index_sequence<Lane...>) {
  to = __builtin_shufflevector(from, from, (Lane ^ Half)...);
}
/// to += a b, rounded once, whatever the compiler's habits. Where a machine's vectors have more than one lane, they
/// have the instruction; elsewhere std::fma finds the same.
template <class Vector>
SINQ_INLINE void add_product(const Vector& a, const Vector& b, Vector& to) {
  static_assert(sizeof a[0] == sizeof(float));
  if constexpr (sizeof a == sizeof(float)) {
    to[0] = __builtin_fmaf(a[0], b[0], to[0]);
  } else {
#if defined(__clang__)
#pragma STDC FP_CONTRACT ON
    to = a * b + to;
#elif SINQ_X86
    asm("{vfmadd231ps %2, %1, %0|vfmadd231ps %0, %1, %2}" : "+v"(to) : "v"(a), "vm"(b));
#else
    asm("fmla %0.4s, %1.4s, %2.4s" : "+w"(to) : "w"(a), "w"(b));
#endif
  }
}

/// Divides by a number as a division does, to the last bit: a product with the reciprocal, corrected by what it leaves.
/// What it leaves must not underflow: quotients below 2^-100 are a unit in the last place off now and then, alike
/// everywhere. @pre the quotient does not overflow
template <std::size_t W>
struct fast_divisor {
  vec<float, W> minus, inverse; ///< -d and 1 / d

  SINQ_INLINE void set(const vec<float, W>& d) {
    minus = -d;
    inverse = 1.0f / d;
  }
  SINQ_INLINE void divide(vec<float, W>& x) const {
    vec<float, W> quotient = x * inverse;
    add_product(quotient, minus, x);
    add_product(x, inverse, quotient);
    x = quotient;
  }
};

template <class From, class To, std::size_t W, std::size_t... Lane>
SINQ_INLINE void load_as(const From* from, vec<To, W>& to, std::index_sequence<Lane...>) {
  to = vec<To, W>{static_cast<To>(from[Lane])...};
}
/// Reads W elements as another, wider type: g++ finds the one instruction for this in a list of elements alone.
template <class To, std::size_t W, class From>
SINQ_INLINE void load_as(const From* from, vec<To, W>& to) {
  load_as<From, To, W>(from, to, std::make_index_sequence<W>{});
}

/// Writes a vector past the caches, for what is too large for them. @pre `to` is aligned to the size of the vector
template <class Vector, class T>
SINQ_INLINE void stream(const Vector& from, T* to) {
#if SINQ_X86 && defined(__clang__)
  if constexpr (sizeof from > sizeof from[0]) return __builtin_nontemporal_store(from, reinterpret_cast<Vector*>(to));
#elif SINQ_X86
  if constexpr (sizeof from > sizeof from[0]) {
    using bytes = char[sizeof from];
    asm("{vmovntps %1, %0|vmovntps %0, %1}" : "=m"(*reinterpret_cast<bytes*>(to)) : "v"(from));
    return;
  }
#endif
  store(from, to);
}
/// Orders what was streamed before whatever is written after.
inline void end_of_stream() {
#if SINQ_X86
  __builtin_ia32_sfence();
#endif
}

template <std::size_t Half, class Vector, std::size_t... Lane>
SINQ_INLINE void exchange_parts(Vector& a, Vector& b, std::index_sequence<Lane...>) {
  constexpr std::size_t width = sizeof...(Lane);
  const Vector first = __builtin_shufflevector(a, b, ((Lane & Half) != 0 ? width + Lane - Half : Lane)...);
  b = __builtin_shufflevector(a, b, ((Lane & Half) != 0 ? width + Lane : Lane + Half)...);
  a = first;
}
/// Rows of a W x W square become columns: halves, then quarters .., are exchanged.
template <std::size_t W, std::size_t Half = W / 2, class Vector>
SINQ_INLINE void transpose(Vector (&rows)[W]) {
  if constexpr (Half > 0) {
    for (std::size_t r = 0; r < W; ++r)
      if ((r & Half) == 0) exchange_parts<Half>(rows[r], rows[r + Half], std::make_index_sequence<W>{});
    transpose<W, Half / 2>(rows);
  }
}

/// Whether look_up is there: clang refuses AVX-512 in a function that is inlined into one for it.
#if SINQ_X86 && !defined(__clang__)
#define SINQ_LOOK_UP 1
#else
#define SINQ_LOOK_UP 0
#endif
#if SINQ_LOOK_UP
/// Replaces 16 places, each modulo 32, by what 32 elements of a table have there: for machines with AVX-512.
template <class Vector>
SINQ_INLINE void look_up(const Vector (&table)[2], vec<std::int32_t, 16>& places) {
  static_assert(sizeof(Vector) == sizeof places);
  asm("{vpermi2ps %2, %1, %0|vpermi2ps %0, %1, %2}" : "+v"(places) : "v"(table[0]), "v"(table[1]));
}
#endif

/// Joins the lanes of each of N vectors into lane n W / N of the first: halves of two vectors are exchanged and joined,
/// then quarters of what is left .. @param join  a <- a with b, for all lanes. @pre N <= W, both powers of two
template <std::size_t W, std::size_t N = W, std::size_t Half = W / 2, class Vector, class Join>
SINQ_INLINE void join_lanes(Vector* rows, Join&& join) {
  if constexpr (N > 1) {
    for (std::size_t r = 0; r < N / 2; ++r) {
      exchange_parts<Half>(rows[r], rows[r + N / 2], std::make_index_sequence<W>{});
      join(rows[r], rows[r + N / 2]);
    }
    join_lanes<W, N / 2, Half / 2>(rows, join);
  } else if constexpr (Half > 0) {
    Vector other;
    swap_halves<Half>(rows[0], other, std::make_index_sequence<W>{});
    join(rows[0], other);
    join_lanes<W, 1, Half / 2>(rows, join);
  }
}

struct take_lower {
  template <class Vector>
  SINQ_INLINE void operator()(Vector& a, const Vector& b) const {
    a = b < a ? b : a;
  }
};
struct take_higher {
  template <class Vector>
  SINQ_INLINE void operator()(Vector& a, const Vector& b) const {
    a = b > a ? b : a;
  }
};
struct take_sum {
  template <class Vector>
  SINQ_INLINE void operator()(Vector& a, const Vector& b) const {
    a += b;
  }
};

/// The least of W lanes, in all of them.
template <std::size_t W, class Vector>
SINQ_INLINE void least_of_lanes(Vector& values) {
  join_lanes<W, 1>(&values, take_lower{});
}
/// The same for the largest.
template <std::size_t W, class Vector>
SINQ_INLINE void most_of_lanes(Vector& values) {
  join_lanes<W, 1>(&values, take_higher{});
}
/// The sum of W lanes, in all of them, as a tree: W to W / 2 .. to 1.
template <std::size_t W, class Vector>
SINQ_INLINE void sum_of_lanes(Vector& values) {
  join_lanes<W, 1>(&values, take_sum{});
}

/// Begins to bring some bytes into the second cache, where many lines may be on their way at once.
SINQ_INLINE void fetch_ahead(const void* from, std::size_t bytes) {
  constexpr std::size_t line = 64;
  for (std::size_t at = 0; at < bytes; at += line) __builtin_prefetch(static_cast<const char*>(from) + at, 0, 2);
}

/// Widens [low, high] to hold n values, none of them NaN.
template <class Real>
struct widen_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const Real* values, std::size_t n, Real& low, Real& high) {
    constexpr std::size_t width = sizeof(Real) == sizeof(float) || W == 1 ? W : W / 2;
    vec<Real, width> least = vec<Real, width>{} + low, most = vec<Real, width>{} + high, x;
    std::size_t k = 0;
    for (; k + width <= n; k += width) {
      load(values + k, x);
      least = x < least ? x : least;
      most = x > most ? x : most;
    }
    least_of_lanes<width>(least);
    most_of_lanes<width>(most);
    low = least[0];
    high = most[0];
    for (; k < n; ++k) {
      low = values[k] < low ? values[k] : low;
      high = values[k] > high ? values[k] : high;
    }
  }
};

SINQ_SEPARATE_ROUNDING_BEGIN
#if SINQ_X86
#define SINQ_TARGET_AVX2 __attribute__((target("avx2,fma")))
#define SINQ_TARGET_AVX512 __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")))

template <class Loop, class... Args>
SINQ_TARGET_AVX2 void run_avx2(Args&... args) {
  Loop::template run<8>(args...);
}
template <class Loop, class... Args>
SINQ_TARGET_AVX512 void run_avx512(Args&... args) {
  Loop::template run<16>(args...);
}
#endif

/// Loop::run<W>(args...) on the instruction set in use, each operation rounded.
template <class Loop, class... Args>
void run_wide(Args&&... args) {
  switch (current_isa()) {
#if SINQ_X86
  case isa::amx:
  case isa::avx512: return run_avx512<Loop>(args...);
  case isa::avx2: return run_avx2<Loop>(args...);
#endif
#if defined(__aarch64__)
  case isa::neon: return Loop::template run<4>(args...);
#endif
  default: return Loop::template run<1>(args...);
  }
}
SINQ_SEPARATE_ROUNDING_END

#if SINQ_X86
namespace fused {
template <class Loop, class... Args>
SINQ_TARGET_AVX2 void run_avx2(Args&... args) {
  Loop::template run<8>(args...);
}
template <class Loop, class... Args>
SINQ_TARGET_AVX512 void run_avx512(Args&... args) {
  Loop::template run<16>(args...);
}
} // namespace fused
#endif

/// The same for loops whose products may be fused with the sums that they enter: faster, and results differ from one
/// instruction set to another by rounding.
template <class Loop, class... Args>
void run_wide_fused(Args&&... args) {
  switch (current_isa()) {
#if SINQ_X86
  case isa::amx:
  case isa::avx512: return fused::run_avx512<Loop>(args...);
  case isa::avx2: return fused::run_avx2<Loop>(args...);
#endif
#if defined(__aarch64__)
  case isa::neon: return Loop::template run<4>(args...);
#endif
  default: return Loop::template run<1>(args...);
  }
}

} // namespace sinq::detail
