#include "support/catch.hpp"

#include <sinq/core/weight_view.hpp>

#include <limits>
#include <utility>
#include <vector>

using sinq::dtype;
using sinq::matrix_view;
using sinq::weight_view;

TEST_CASE("a weight view reads elements of any floating type") {
  const std::vector<float> values{1.0f, -2.0f, 0.5f, 8.0f, -0.25f, 3.0f};
  for (const dtype type : {dtype::f64, dtype::f32, dtype::f16, dtype::bf16, dtype::f8_e4m3, dtype::f8_e5m2}) {
    CAPTURE(std::string{to_string(type)});
    std::vector<sinq::byte> stored(1 + values.size() * size_bytes(type));
    sinq::store_floats(values, type, stored.data() + 1);
    const weight_view w{stored.data() + 1, type, 2, 3};
    CHECK(w.type() == type);
    std::vector<float> row(3);
    w.load(1, 0, row);
    CHECK(row == std::vector<float>{8.0f, -0.25f, 3.0f});
    std::vector<float> part(2);
    w.load(0, 1, part);
    CHECK(part == std::vector<float>{-2.0f, 0.5f});
  }
}

TEST_CASE("a weight view follows the stride of a matrix view") {
  std::vector<sinq::bfloat16> values;
  for (int i = 0; i < 12; ++i) values.emplace_back(static_cast<float>(i));
  const matrix_view<sinq::bfloat16> m{values.data(), 3, 3, 4};
  const weight_view w = m.block(1, 1, 2, 2);
  CHECK(w.rows() == 2);
  CHECK(w.cols() == 2);
  std::vector<float> row(2);
  w.load(1, 0, row);
  CHECK(row == std::vector<float>{9.0f, 10.0f});
  CHECK_FALSE(w.empty());
  CHECK(weight_view{}.empty());
}

TEST_CASE("the first non-finite value is named by row and column") {
  const auto rows = GENERATE(std::size_t{1}, std::size_t{3});
  const auto cols = GENERATE(std::size_t{1}, std::size_t{255}, std::size_t{256}, std::size_t{257}, std::size_t{600});
  CAPTURE(rows, cols);
  std::vector<float> values(rows * cols, 1.0f);
  const weight_view w = matrix_view<float>{values.data(), rows, cols};
  CHECK_FALSE(find_non_finite(w));
  values.back() = std::numeric_limits<float>::infinity();
  CHECK(find_non_finite(w) == std::pair{rows - 1, cols - 1});
  values[cols / 2] = std::numeric_limits<float>::quiet_NaN();
  CHECK(find_non_finite(w) == std::pair{std::size_t{0}, cols / 2});
}

TEST_CASE("a weight without elements has no non-finite value") {
  CHECK_FALSE(find_non_finite(weight_view{}));
}
