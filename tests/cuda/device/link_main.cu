#include "link_parts.hpp"

#include <cstdio>

int main() {
  constexpr int skipped = 77;
  if (const auto device = sinq::cuda::device_info::current(); !device) {
    std::printf("SKIPPED: two units link, but %s\n", device.error().message.c_str());
    return skipped;
  }
  const auto here = link_parts::quantize_and_back();
  const auto there = link_parts::in_other_unit();
  if (!here || !there || *here != *there) {
    std::puts("the two translation units disagree");
    return 1;
  }
  std::printf("two translation units agree on %zu values\n", here->size());
  return 0;
}
