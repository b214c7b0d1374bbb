// expected: no matching function|no matching constructor|could not convert|no viable conversion
#include <sinq/core/weight_view.hpp>

#ifdef SINQ_WRONG
using element = int;
#else
using element = sinq::bfloat16;
#endif

sinq::weight_view view(sinq::matrix_view<const element> w) {
  return sinq::weight_view{w};
}
