#pragma once

#include <span>

namespace engine {

/// x = e^x / sum e^x, to a relative error below 1e-6, and 2^-24 of the largest x less this one.
void softmax(std::span<float> x);

/// gate = silu(gate) up, silu(v) = v / (1 + e^-v), to a relative error below 1e-6. @pre as many of each
void gate_with_silu(std::span<float> gate, std::span<const float> up);

} // namespace engine
