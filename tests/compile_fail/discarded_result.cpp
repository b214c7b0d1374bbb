// expected: ignoring return
#include <sinq/quant/quantize.hpp>

void run(sinq::matrix_view<const float> w) {
#ifdef SINQ_WRONG
  sinq::quantize(w, {});
#else
  if (!sinq::quantize(w, {})) return;
#endif
}
