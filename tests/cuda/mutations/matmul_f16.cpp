#include "matmul.hpp"

TEST_CASE("products of f16") {
  sinq_test::check_products<__half>();
}
