#include "matmul.hpp"

TEST_CASE("products of bfloat16") {
  sinq_test::check_products<__nv_bfloat16>();
}
