// expected: deleted
#include <sinq/core/aligned_buffer.hpp>

sinq::aligned_buffer<float> take(sinq::aligned_buffer<float>& from) {
#ifdef SINQ_WRONG
  return from;
#else
  return std::move(from);
#endif
}
