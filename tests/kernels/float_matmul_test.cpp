#include "kernels/products.hpp"
#include "support/catch.hpp"
#include "support/each_isa.hpp"
#include "support/outcome.hpp"

#include <sinq/kernels/float_matmul.hpp>

#include <limits>

using namespace sinq_test;

namespace {

/// A weight as a file has it, behind one byte so that it is not aligned, and the same weight in floats.
struct stored_weight {
  std::vector<sinq::byte> bytes;
  sinq::dtype type;
  matrix values;

  stored_weight(std::size_t rows, std::size_t cols, sinq::dtype element, std::size_t offset)
      : bytes(offset + rows * cols * sinq::size_bytes(element)), type{element}, values{tokens(rows, cols, 9)},
        offset_{offset} {
    sinq::store_floats(values.values, type, bytes.data() + offset);
    sinq::load_floats(bytes.data() + offset, type, values.values);
  }
  [[nodiscard]] sinq::weight_view view() const { return {bytes.data() + offset_, type, values.rows, values.cols}; }

private:
  std::size_t offset_;
};

products products_of_floats(const matrix& w, const matrix& x, std::span<const float> bias) {
  const doubles weight = w.view().eigen().cast<double>(), token = x.view().eigen().cast<double>();
  products p{.y = token * weight.transpose(),
             .terms = token.cwiseAbs() * weight.cwiseAbs().transpose(),
             .doubt = doubles::Zero(token.rows(), weight.rows())};
  for (std::size_t i = 0; i < bias.size(); ++i) {
    p.y.col(static_cast<Index>(i)).array() += double{bias[i]};
    p.terms.col(static_cast<Index>(i)).array() += std::fabs(double{bias[i]});
  }
  return p;
}

matrix floats_multiplied(const sinq::weight_view& w, const matrix& x, const sinq::matmul_options& options = {}) {
  matrix y{x.rows, w.rows()};
  require_ok(sinq::matmul(w, sinq::matrix_view<const float>{x.view()}, y.view(), options));
  return y;
}

/// f32 sums: each of K products and sums rounds by 2^-24 of what it holds, at worst one after the other on one lane.
double tolerance_of_floats(std::size_t cols) {
  return static_cast<double>(cols + 20) * 0x1p-24;
}

TEST_CASE("weights in floats are multiplied as in double, whatever their type, shape and instruction set") {
  for (const sinq::isa isa : isas_here()) {
    const on_isa forced{isa};
    for (const sinq::dtype type : {sinq::dtype::f32, sinq::dtype::bf16, sinq::dtype::f16, sinq::dtype::f8_e4m3})
      for (const std::size_t rows : {1u, 7u, 37u})
        for (const std::size_t cols : {1u, 15u, 64u, 530u, 1100u}) {
          const stored_weight w{rows, cols, type, type == sinq::dtype::f8_e4m3 ? 0u : rows % 2};
          const matrix all = tokens(65, cols);
          const std::vector<float> bias = tokens(1, rows, 3).values;
          for (const std::size_t count : {1u, 2u, 3u, 4u, 5u, 8u, 17u, 65u}) {
            CAPTURE(to_string(isa), to_string(type), rows, cols, count);
            matrix x{count, cols};
            std::copy_n(all.values.begin(), x.values.size(), x.values.begin());
            const products expected = products_of_floats(w.values, x, bias);
            CHECK(
                close_to_products(floats_multiplied(w.view(), x, {.bias = bias}), expected, tolerance_of_floats(cols)));
          }
        }
  }
}

TEST_CASE("products with floats are the same on any number of threads") {
  const stored_weight w{700, 530, sinq::dtype::bf16, 0};
  const matrix x = tokens(33, 530);
  sinq::thread_pool one{1}, three{3};
  CHECK(floats_multiplied(w.view(), x, {.threads = &one}).values ==
        floats_multiplied(w.view(), x, {.threads = &three}).values);
}

TEST_CASE("the comparison of products with floats notices a weight, a column and a row") {
  const stored_weight w{5, 70, sinq::dtype::f32, 0};
  const matrix x = tokens(3, 70);
  const products expected = products_of_floats(w.values, x, {});
  const auto notices = [&](auto&& change) {
    stored_weight other = w;
    change(other.values);
    sinq::store_floats(other.values.values, other.type, other.bytes.data());
    return !close_to_products(floats_multiplied(other.view(), x), expected, tolerance_of_floats(70));
  };
  CHECK_FALSE(notices([](matrix&) {}));
  CHECK(notices([](matrix& v) { v.values[69] *= 1.01f; }));
  CHECK(notices([](matrix& v) { v.values[2 * 70 + 3] = 0; }));
  CHECK(notices([](matrix& v) { std::swap_ranges(v.values.begin(), v.values.begin() + 70, v.values.begin() + 70); }));
}

TEST_CASE("strides of weights, activations and outputs are respected") {
  const matrix all = tokens(9, 40, 9), x_all = tokens(4, 50);
  const sinq::matrix_view<const float> w = sinq::matrix_view<const float>{all.view()}.block(1, 3, 6, 33);
  const sinq::matrix_view<const float> x = sinq::matrix_view<const float>{x_all.view()}.block(1, 8, 3, 33);
  matrix y{5, 11};
  require_ok(sinq::matmul(sinq::weight_view{w}, x, y.view().block(1, 2, 3, 6)));
  matrix small_w{6, 33}, small_x{3, 33}, small_y{3, 6};
  for (std::size_t i = 0; i < 6; ++i) std::copy_n(w.row(i).data(), 33, small_w.view().row(i).data());
  for (std::size_t m = 0; m < 3; ++m) std::copy_n(x.row(m).data(), 33, small_x.view().row(m).data());
  double outside = 0;
  for (std::size_t m = 0; m < 5; ++m)
    for (std::size_t i = 0; i < 11; ++i) {
      const bool inside = m >= 1 && m < 4 && i >= 2 && i < 8;
      if (inside)
        small_y.view()(m - 1, i - 2) = y.view()(m, i);
      else
        outside += std::fabs(double{y.view()(m, i)});
    }
  CHECK(outside == 0);
  CHECK(close_to_products(small_y, products_of_floats(small_w, small_x, {}), tolerance_of_floats(33)));
}

TEST_CASE("a token that is not finite leaves the others alone when weights are floats") {
  const stored_weight w{20, 70, sinq::dtype::bf16, 0};
  matrix x = tokens(6, 70);
  const matrix clean = floats_multiplied(w.view(), x);
  x.view()(2, 5) = std::numeric_limits<float>::quiet_NaN();
  const matrix y = floats_multiplied(w.view(), x);
  for (std::size_t m = 0; m < 6; ++m)
    for (std::size_t i = 0; i < 20; ++i)
      CHECK((m == 2 ? !sinq::is_finite(y.view()(m, i)) : y.view()(m, i) == clean.view()(m, i)));
}

TEST_CASE("products with floats name shapes that do not fit") {
  const matrix w{3, 8}, x{2, 7};
  matrix y{2, 3};
  const sinq::weight_view weight{sinq::matrix_view<const float>{w.view()}};
  check_error(sinq::matmul(weight, sinq::matrix_view<const float>{x.view()}, y.view()), sinq::errc::invalid_argument,
              {"x is 2 x 7", "expected M x 8"});
  const matrix fits{2, 8};
  check_error(sinq::matmul(weight, sinq::matrix_view<const float>{fits.view()}, y.view(), {.bias = x.values}),
              sinq::errc::invalid_argument, {"bias has 14", "expected 3"});
  check_error(sinq::matmul(sinq::weight_view{}, sinq::matrix_view<const float>{}, {}), sinq::errc::empty_matrix,
              {"no columns"});
}

} // namespace
