#include "support/catch.hpp"

#include <sinq/core/matrix_view.hpp>

#include <numeric>
#include <type_traits>
#include <vector>

using sinq::matrix_view;
using row_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using column_major = Eigen::MatrixXf;

namespace {

std::vector<float> counted(std::size_t size) {
  std::vector<float> values(size);
  std::iota(values.begin(), values.end(), 0.0f);
  return values;
}

} // namespace

TEST_CASE("an element is found by row, stride and column") {
  std::vector<float> values = counted(12);
  const matrix_view w{values.data(), 3, 3, 4};
  STATIC_REQUIRE(std::is_same_v<decltype(w), const matrix_view<float>>);
  CHECK(w.rows() == 3);
  CHECK(w.cols() == 3);
  CHECK(w.stride() == 4);
  CHECK(w(0, 0) == 0.0f);
  CHECK(w(2, 1) == 9.0f);
  CHECK(w.row(1).size() == 3);
  CHECK(w.row(1)[2] == 6.0f);
  w(1, 2) = -1.0f;
  CHECK(values[6] == -1.0f);
}

TEST_CASE("a view without elements is empty") {
  float value = 0.0f;
  CHECK(matrix_view<float>{}.empty());
  CHECK(matrix_view<float>{&value, 0, 3}.empty());
  CHECK(matrix_view<float>{&value, 3, 0}.empty());
  CHECK_FALSE(matrix_view<float>{&value, 1, 1}.empty());
}

TEST_CASE("a block is a view of the same memory") {
  std::vector<float> values = counted(20);
  const matrix_view w{values.data(), 4, 5};
  const matrix_view<float> block = w.block(1, 2, 2, 3);
  CHECK(block.rows() == 2);
  CHECK(block.cols() == 3);
  CHECK(block.stride() == 5);
  CHECK(&block(0, 0) == &w(1, 2));
  CHECK(&block(1, 2) == &w(2, 4));
  const matrix_view<float> inner = block.block(1, 1, 1, 2);
  CHECK(&inner(0, 1) == &w(2, 4));
  CHECK(w.block(4, 0, 0, 5).empty());
}

TEST_CASE("a mutable view becomes a const one, never the other way") {
  std::vector<float> values = counted(4);
  const matrix_view<float> w{values.data(), 2, 2};
  const matrix_view<const float> c = w;
  CHECK(c.data() == w.data());
  STATIC_REQUIRE_FALSE(std::is_constructible_v<matrix_view<float>, matrix_view<const float>>);
  STATIC_REQUIRE(std::is_same_v<decltype(c(0, 0)), const float&>);
  STATIC_REQUIRE(std::is_same_v<matrix_view<const float>::value_type, float>);
}

TEST_CASE("Eigen's row-major matrices, maps and blocks can be viewed") {
  row_major m = row_major::Random(3, 4);
  const matrix_view<float> w{m};
  CHECK(w.rows() == 3);
  CHECK(w.cols() == 4);
  CHECK(&w(2, 3) == &m(2, 3));

  const row_major& constant = m;
  const matrix_view<const float> c{constant};
  CHECK(&c(1, 1) == &m(1, 1));

  Eigen::Ref<row_major> block = m.block(1, 1, 2, 2);
  const matrix_view<float> b{block};
  CHECK(b.stride() == 4);
  CHECK(&b(1, 1) == &m(2, 2));

  STATIC_REQUIRE_FALSE(std::is_constructible_v<matrix_view<float>, column_major&>);
  STATIC_REQUIRE_FALSE(std::is_constructible_v<matrix_view<float>, const row_major&>);
}

TEST_CASE("a view can be read and written as an Eigen matrix") {
  std::vector<float> values = counted(12);
  const matrix_view<float> w{values.data(), 3, 3, 4};
  CHECK(w.eigen().rows() == 3);
  CHECK(w.eigen()(2, 1) == w(2, 1));
  CHECK(w.eigen().sum() == 0.0f + 1 + 2 + 4 + 5 + 6 + 8 + 9 + 10);
  w.eigen().col(2).setZero();
  CHECK(w(0, 2) == 0.0f);
  CHECK(values[3] == 3.0f);

  const matrix_view<const float> c = w;
  CHECK(c.eigen().data() == values.data());
  STATIC_REQUIRE(std::is_same_v<decltype(c.eigen().data()), const float*>);
}
