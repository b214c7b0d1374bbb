#include "work.hpp"

parts::outcome parts::plain() {
  return quantize_and_back<struct plain_unit>();
}
