#pragma once

#include <cstdint>
#include <vector>

/// The same work done by two translation units that are compiled for different processors.
namespace parts {

struct outcome {
  std::vector<std::uint8_t> codes;
  std::vector<float> values;
};

outcome plain();
outcome vectorized();

} // namespace parts
