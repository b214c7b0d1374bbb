// expected: packed_layout: bits must be 2, 3, 4, 5, 6 or 8
#include <sinq/pack/layout.hpp>

#ifdef SINQ_WRONG
inline constexpr int bits = 1;
#else
inline constexpr int bits = 2;
#endif

std::size_t bytes = sinq::packed_layout<bits>::row_bytes(64);
