#include "support/catch.hpp"
#include "support/random_matrices.hpp"

#include <sinq/math/hadamard.hpp>

#include <bit>
#include <vector>

TEST_CASE("the block is the largest power of two that divides the columns") {
  static_assert(sinq::hadamard_block(4096) == 4096);
  static_assert(sinq::hadamard_block(1536) == 512);
  static_assert(sinq::hadamard_block(576) == 64);
  static_assert(sinq::hadamard_block(577) == 1);
  static_assert(sinq::hadamard_block(std::size_t{1} << 20) == std::size_t{1} << 15);
}

TEST_CASE("the rotation is that of the Walsh-Hadamard matrix, and its own inverse") {
  sinq_test::random_source random{3};
  for (const std::size_t block : {1u, 2u, 4u, 32u, 256u})
    for (const std::size_t blocks : {1u, 3u}) {
      std::vector<double> x(block * blocks);
      for (double& value : x) value = random.normal();
      std::vector<double> rotated = x;
      sinq::hadamard_rotate(std::span{rotated}, block);
      for (std::size_t k = 0; k < x.size(); ++k) {
        double expected = 0;
        for (std::size_t l = 0; l < block; ++l) {
          const double sign = std::popcount(k % block & l) % 2 == 0 ? 1 : -1;
          expected += sign * x[k / block * block + l] / std::sqrt(static_cast<double>(block));
        }
        REQUIRE(rotated[k] == Approx(expected).margin(1e-12));
      }
      sinq::hadamard_rotate(std::span{rotated}, block);
      for (std::size_t k = 0; k < x.size(); ++k) REQUIRE(rotated[k] == Approx(x[k]).margin(1e-12));
    }
}
