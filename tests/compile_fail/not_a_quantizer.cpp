// expected: constraint
#include <sinq/quant/rtn.hpp>
#include <sinq/quant/sinkhorn_quantizer.hpp>

struct without_call_operator {
  static constexpr bool row_independent = true;
  int bits() const { return 4; }
  std::size_t group_size() const { return 64; }
};

#ifdef SINQ_WRONG
using inner = without_call_operator;
#else
using inner = sinq::rtn_quantizer<4>;
#endif

sinq::sinkhorn_quantizer<inner> q;
