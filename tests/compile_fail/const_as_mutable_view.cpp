// expected: no matching function|no matching constructor
#include <sinq/core/matrix_view.hpp>

float first(const float* data) {
#ifdef SINQ_WRONG
  return sinq::matrix_view<float>{data, 1, 1}(0, 0);
#else
  return sinq::matrix_view<const float>{data, 1, 1}(0, 0);
#endif
}
