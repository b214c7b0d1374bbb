/// Two translation units that include every header, one of them compiled with -mavx2 -mfma on x86-64: they link without
/// duplicate symbols, and give the same codes and values.

#include "parts.hpp"

#include <cstdio>

int main() {
#ifdef SINQ_LINK_AVX2
  constexpr int skipped = 77;
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    std::puts("SKIPPED: this processor has no AVX2 and FMA");
    return skipped;
  }
#else
  std::puts("both units are compiled alike: not an x86-64 processor");
#endif
  const parts::outcome a = parts::plain();
  const parts::outcome b = parts::vectorized();
  if (a.codes.empty() || a.codes != b.codes || a.values != b.values) {
    std::puts("the two translation units disagree");
    return 1;
  }
  std::printf("two translation units agree on %zu codes\n", a.codes.size());
  return 0;
}
