#include "work.hpp"

parts::outcome parts::vectorized() {
  return quantize_and_back<struct vectorized_unit>();
}
