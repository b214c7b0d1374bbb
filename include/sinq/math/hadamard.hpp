#pragma once

#include "../core/config.hpp"

#include <bit>
#include <cmath>
#include <cstddef>
#include <span>

namespace sinq {

/// Length of the blocks in which K columns can be rotated: the largest power of two that divides K, at most `limit`.
/// K = 4096 rotates whole, K = 1536 in three blocks of 512, K = 576 in nine of 64; an odd K cannot be rotated: 1.
[[nodiscard]] constexpr std::size_t hadamard_block(std::size_t cols, std::size_t limit = std::size_t{1} << 15) {
  const std::size_t block = cols & (~cols + 1);
  return block < limit ? block : limit;
}

/// Rotates a vector in place by the orthonormal Walsh-Hadamard matrix, block by block: x' = R x.
/// R = diag(H, H, ...),  H[a][b] = (-1)^popcount(a & b) / sqrt(block);  R is symmetric and its own inverse, so that the
/// rows of W R are the rotated rows of W, and W x = (W R)(R x).
/// @param x      its length is a multiple of block
/// @param block  a power of two
/// Numerics: log2(block) + 1 roundings an element in Real; |x'| <= sqrt(block) max|x|. Cost O(K log block).
template <class Real>
void hadamard_rotate(std::span<Real> x, std::size_t block) {
  SINQ_ASSERT(std::has_single_bit(block) && x.size() % block == 0);
  const Real norm = static_cast<Real>(1.0 / std::sqrt(static_cast<double>(block)));
  for (std::size_t begin = 0; begin < x.size(); begin += block) {
    Real* const part = x.data() + begin;
    for (std::size_t k = 0; k < block; ++k) part[k] *= norm;
    for (std::size_t half = 1; half < block; half *= 2)
      for (std::size_t pair = 0; pair < block; pair += 2 * half)
        for (std::size_t k = pair; k < pair + half; ++k) {
          const Real a = part[k];
          const Real b = part[k + half];
          part[k] = a + b;
          part[k + half] = a - b;
        }
  }
}

} // namespace sinq
