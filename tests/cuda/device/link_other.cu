#include "link_parts.hpp"

sinq::result<std::vector<float>> link_parts::in_other_unit() {
  return quantize_and_back();
}
