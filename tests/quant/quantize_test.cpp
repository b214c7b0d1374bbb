#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/random_matrices.hpp"

#include <sinq/pack/pack.hpp>
#include <sinq/quant/quantize.hpp>

#include <atomic>
#include <cmath>
#include <limits>

using namespace sinq_test;

namespace {

sinq::quantized_matrix quantized(const sinq::weight_view& w, const sinq::quantize_options& options = {}) {
  auto q = sinq::quantize(w, options);
  if (!q) FAIL(q.error().message);
  return *std::move(q);
}

double value(const sinq::quantized_matrix& q, std::size_t i, std::size_t j) {
  const std::size_t g = j / q.format.group_size;
  return double{q.scale_matrix()(i, g)} * (static_cast<double>(q.code_matrix()(i, j)) - double{q.zero_at(i, g)}) *
         double{q.col_scale_at(j)};
}

void check_same(const sinq::quantized_matrix& a, const sinq::quantized_matrix& b) {
  CHECK(a.format == b.format);
  CHECK(std::equal(a.codes.begin(), a.codes.end(), b.codes.begin(), b.codes.end()));
  CHECK(a.scale == b.scale);
  CHECK(a.zero == b.zero);
  CHECK(a.col_scale == b.col_scale);
}

matrix scaled(matrix m, int power) {
  for (float& v : m.values) v = std::ldexp(v, power);
  return m;
}

} // namespace

TEST_CASE("every method brings every weight back within half a step") {
  for (const sinq::method_info& method : sinq::method_table)
    for (const int bits : sinq::supported_bits)
      for (const bool symmetric : {false, true})
        for (const auto& [rows, cols] : ragged_shapes)
          for (const named_matrix& kind : every_kind(rows, cols, 41)) {
            const auto q = quantized(kind.m.view(), {.method = method.id,
                                                     .bits = bits,
                                                     .group_size = 48,
                                                     .aux = sinq::aux_dtype::f32,
                                                     .symmetric = symmetric});
            for (std::size_t i = 0; i < rows; ++i)
              for (std::size_t j = 0; j < cols; ++j) {
                const std::size_t g = j / 48;
                const double step = double{q.scale_matrix()(i, g)} * double{q.col_scale_at(j)};
                const double top = std::max(std::fabs(q.zero_at(i, g)), static_cast<float>(sinq::max_code(bits)));
                // The step's rounding and those of the normalised weight: 4 half ulps of the weight. The smallest
                // normal float bounds steps from below, times a t of at most e^10.
                const double limit = step * (0.5 + 0x1p-23 * top) + 0x1p-22 * std::fabs(double{kind.m(i, j)}) + 3e-34;
                const double error = std::fabs(value(q, i, j) - double{kind.m(i, j)});
                if (!(error <= limit)) {
                  INFO(method.name << " " << bits << " bits, " << kind.name << " " << rows << " x " << cols << " at "
                                   << i << ", " << j);
                  REQUIRE(error <= limit);
                }
              }
          }
}

TEST_CASE("the result does not depend on threads") {
  const matrix m = with_outliers(70, 333, 5);
  sinq::serial_executor serial;
  for (const sinq::method_info& method : sinq::method_table) {
    const auto reference = quantized(m.view(), {.method = method.id, .group_size = 32, .run = {.threads = &serial}});
    for (const std::size_t threads : {1u, 2u, 3u, 7u}) {
      sinq::thread_pool pool{threads};
      check_same(reference, quantized(m.view(), {.method = method.id, .group_size = 32, .run = {.threads = &pool}}));
    }
  }
}

TEST_CASE("permuting rows permutes the result") {
  const matrix m = with_outliers(40, 130, 6);
  matrix reversed = m;
  for (std::size_t i = 0; i < m.rows; ++i)
    for (std::size_t j = 0; j < m.cols; ++j) reversed(i, j) = m(m.rows - 1 - i, j);
  for (const sinq::method_info& method : sinq::method_table) {
    const auto a = quantized(m.view(), {.method = method.id});
    const auto b = quantized(reversed.view(), {.method = method.id});
    for (std::size_t i = 0; i < m.rows; ++i) {
      const std::size_t other = m.rows - 1 - i;
      CHECK(same_codes(a.code_matrix().row(i), b.code_matrix().row(other), 1.0));
      // column sums run in another order: 1e-16 in f64, at most an ulp in the scales
      CHECK(close_each(a.scale_matrix().row(i), b.scale_matrix().row(other), 1e-6));
    }
  }
}

TEST_CASE("scaling by a power of two scales the result and keeps the codes") {
  const matrix m = with_outliers(64, 128, 7);
  for (const sinq::method_info& method : sinq::method_table)
    for (const bool symmetric : {false, true}) {
      const sinq::quantize_options options{.method = method.id, .aux = sinq::aux_dtype::f32, .symmetric = symmetric};
      const auto a = quantized(m.view(), options);
      for (const int power : {-64, -33, -16, -10, -7, -1, 1, 3, 8, 16, 40, 64}) {
        const auto b = quantized(scaled(m, power).view(), options);
        INFO(method.name << ", 2^" << power);
        // The reference's margin of 1e-6 on the target is absolute, so outside whole periods of the window codes may
        // differ at rounding ties.
        const bool exact = method.id == sinq::method::rtn || power % 16 == 0;
        CHECK(same_codes(b.codes.span(), std::as_const(a.codes).span(), exact ? 1.0 : 0.9998));
        for (std::size_t j = 0; j < m.cols; ++j)
          CHECK(value(b, 5, j) == Approx(std::ldexp(value(a, 5, j), power)).epsilon(0.02));
      }
    }
}

TEST_CASE("every element type gives the result of its floats") {
  const matrix m = with_outliers(20, 70, 8);
  const auto check = [&]<class T>(const std::vector<T>& typed) {
    std::vector<float> floats(typed.size());
    for (std::size_t n = 0; n < typed.size(); ++n) floats[n] = sinq::to_float(typed[n]);
    check_same(quantized(sinq::matrix_view<const T>{typed.data(), m.rows, m.cols}),
               quantized(sinq::matrix_view<const float>{floats.data(), m.rows, m.cols}));
  };
  check(std::vector<double>(m.values.begin(), m.values.end()));
  std::vector<sinq::float16> half;
  std::vector<sinq::bfloat16> brain;
  std::vector<sinq::float8_e4m3> small;
  for (const float v : m.values) {
    half.emplace_back(v);
    brain.emplace_back(v);
    small.push_back(sinq::detail::nearest_float8<sinq::float8_e4m3>(v, 0x7e));
  }
  check(half);
  check(brain);
  check(small);
}

TEST_CASE("a view with a stride and unaligned bytes are read right") {
  const matrix m = gaussian(12, 80, 9);
  matrix part{12, 50};
  for (std::size_t i = 0; i < 12; ++i)
    for (std::size_t j = 0; j < 50; ++j) part(i, j) = m(i, j + 7);
  const auto expected = quantized(part.view());
  check_same(expected, quantized(m.view().block(0, 7, 12, 50)));
  std::vector<sinq::byte> bytes(part.values.size() * sizeof(float) + 1);
  std::memcpy(bytes.data() + 1, part.values.data(), part.values.size() * sizeof(float));
  check_same(expected, quantized(sinq::weight_view{bytes.data() + 1, sinq::dtype::f32, 12, 50}));
}

TEST_CASE("quantize refuses what it cannot do, naming the values") {
  const auto refused = [](const sinq::weight_view& w, const sinq::quantize_options& options, sinq::errc code,
                          std::string_view says) {
    const auto q = sinq::quantize(w, options);
    REQUIRE_FALSE(q);
    CHECK(q.error().code == code);
    INFO(q.error().message);
    CHECK(q.error().message.find(says) != std::string::npos);
  };
  const matrix good = gaussian(70, 200, 10);
  for (const sinq::method_info& method : sinq::method_table) {
    refused({}, {.method = method.id}, sinq::errc::empty_matrix, "0 x 0");
    refused(good.view(), {.method = method.id, .bits = 7}, sinq::errc::invalid_argument, "bits is 7");
    refused(good.view(), {.method = method.id, .group_size = 0}, sinq::errc::invalid_argument, "group_size is 0");
    for (const float poison : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                               -std::numeric_limits<float>::infinity()}) {
      matrix bad = good;
      bad(3, 190) = poison; // first in row-major order, though a later tile than the next
      bad(5, 2) = poison;
      refused(bad.view(), {.method = method.id}, sinq::errc::non_finite, "row 3, column 190 of 70 x 200");
    }
  }
  refused(good.view(), {.sinkhorn = {.iterations = -2}}, sinq::errc::invalid_argument, "iterations is -2");
}

TEST_CASE("progress is told and can cancel") {
  const matrix m = gaussian(64, 640, 11);
  double last = 0;
  (void)quantized(m.view(), {.run = {.threads = nullptr, .progress = [&](double done) {
                                       CHECK(done > last);
                                       last = done;
                                       return true;
                                     }}});
  CHECK(last == 1.0);
  const auto cancelled =
      sinq::quantize(m.view(), {.run = {.threads = nullptr, .progress = [](double) { return false; }}});
  REQUIRE_FALSE(cancelled);
  CHECK(cancelled.error().code == sinq::errc::cancelled);
}

TEST_CASE("the method table is in order and its names are found") {
  for (std::size_t n = 0; n < sinq::method_table.size(); ++n)
    CHECK(static_cast<std::size_t>(sinq::method_table[n].id) == n);
  for (const sinq::method_info& method : sinq::method_table) CHECK(sinq::parse_method(method.name) == method.id);
  CHECK_FALSE(sinq::parse_method("no such method"));
}

TEST_CASE("sinq spreads an outlier's error better than rtn") {
  matrix m = with_outliers(128, 256, 12);
  const auto error = [&](sinq::method method) {
    const auto q = quantized(m.view(), {.method = method});
    std::vector<double> col_square(m.cols), col_error(m.cols);
    for (std::size_t i = 0; i < m.rows; ++i)
      for (std::size_t j = 0; j < m.cols; ++j) {
        col_square[j] += double{m(i, j)} * double{m(i, j)};
        col_error[j] += std::pow(value(q, i, j) - double{m(i, j)}, 2);
      }
    double sum = 0;
    for (std::size_t j = 0; j < m.cols; ++j) sum += col_error[j] / col_square[j];
    return std::sqrt(sum / static_cast<double>(m.cols));
  };
  CHECK(error(sinq::method::sinq) < 0.7 * error(sinq::method::rtn));
}

namespace {

/// The smallest quantizer of a user: one bit of sign in a 2-bit code, scale the mean magnitude of the row.
struct sign_quantizer {
  static constexpr bool row_independent = true;
  [[nodiscard]] int bits() const { return 2; }
  [[nodiscard]] std::size_t group_size() const { return 64; }
  [[nodiscard]] sinq::result<sinq::quantized_matrix> operator()(sinq::matrix_view<const float> w) const {
    auto q = sinq::quantized_matrix::allocate(
        {.rows = w.rows(), .cols = w.cols(), .bits = 2, .group_size = w.cols(), .aux = sinq::aux_dtype::f32}, "sign");
    for (std::size_t i = 0; i < w.rows(); ++i) {
      for (const float v : w.row(i)) q.scale[i] += std::fabs(v) / static_cast<float>(w.cols());
      q.zero[i] = 1.0f;
      for (std::size_t j = 0; j < w.cols(); ++j) q.codes[i * w.cols() + j] = w(i, j) < 0 ? 0 : 2;
    }
    return q;
  }
};

static_assert(sinq::quantizer<sign_quantizer>);
static_assert(sinq::quantizer<sinq::sinkhorn_quantizer<sign_quantizer>>);
static_assert(sinq::quantizer<sinq::rtn_quantizer<4>>);
static_assert(sinq::quantizer<sinq::sinkhorn_quantizer<sinq::rtn_quantizer<2>>>);
static_assert(!sinq::quantizer<int>);

} // namespace

TEST_CASE("a user's quantizer works alone, in tiles and inside sinq") {
  const matrix m = with_outliers(32, 128, 13);
  sinq::matrix_format format{
      .rows = 32, .cols = 128, .bits = 2, .group_size = 64, .aux = sinq::aux_dtype::f32, .has_zero = true};
  const auto plain = sinq::quantize_tiles(m.view(), format, "sign", sign_quantizer{});
  REQUIRE(plain);
  CHECK(value(*plain, 3, 100) * double{m(3, 100)} > 0);
  format.has_col_scale = true;
  const auto balanced = sinq::quantize_tiles(m.view(), format, "sinq_sign",
                                             sinq::sinkhorn_quantizer{sinq::sinkhorn_options{}, sign_quantizer{}});
  REQUIRE(balanced);
  CHECK(balanced->method == "sinq_sign");
  CHECK(sinq::pack(*balanced));
}
