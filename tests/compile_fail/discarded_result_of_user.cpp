// expected: ignoring return
#include <sinq/core/error.hpp>

sinq::result<void> save();

void run() {
#ifdef SINQ_WRONG
  save();
#else
  if (!save()) return;
#endif
}
