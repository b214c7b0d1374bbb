// expected: rtn_quantizer: bits must be 2, 3, 4, 5, 6 or 8
#include <sinq/quant/rtn.hpp>

#ifdef SINQ_WRONG
inline constexpr int bits = 7;
#else
inline constexpr int bits = 6;
#endif

sinq::rtn_quantizer<bits> q;
