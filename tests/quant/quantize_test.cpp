#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/methods.hpp"
#include "support/random_matrices.hpp"
#include "support/sampled.hpp"

#include <sinq/pack/pack.hpp>
#include <sinq/quant/quantize.hpp>

#include <atomic>
#include <cmath>
#include <limits>
#include <optional>
#include <tuple>

using namespace sinq_test;

namespace {

double value(const sinq::quantized_matrix& q, std::size_t i, std::size_t j) {
  return value_of_code(q, i, j);
}

matrix scaled(matrix m, int power) {
  for (float& v : m.values) v = std::ldexp(v, power);
  return m;
}

/// HQQ moves zero points to lower the mean error, and lets the outermost weights of a group fall off its grid.
bool moves_zeros(const sinq::method_info& method) {
  return method.id == sinq::method::hqq || method.id == sinq::method::sinq_hqq;
}

/// Error feedback moves the weights that it has still to round.
bool feeds_back(const sinq::method_info& method) {
  return method.name.ends_with("gptq");
}

/// Whether every weight is within half a step, or half the widest gap of a codebook; and whether no other level is
/// nearer to it.
void check_errors(const named_matrix& kind, const sinq::method_info& method, const sinq::quantized_matrix& q) {
  const matrix m = as_rotated(kind.m, q.format);
  const double gap = widest_gap(q.levels()) * (moves_zeros(method) ? 2.5 : 0.5);
  const double top = sinq::max_code(q.format.bits);
  const std::size_t levels = q.levels().size();
  for (std::size_t i = 0; i < m.rows; ++i)
    for (std::size_t j = 0; j < m.cols; ++j) {
      const std::size_t g = j / q.format.group_size;
      const double step = double{q.scale_matrix()(i, g)} * double{q.col_scale_at(i, j)};
      const double zero = std::fabs(double{q.zero_at(i, g)});
      const double weight = m(i, j);
      // The step's rounding and those of the normalised weight: 6 half ulps of the weight. The smallest normal float
      // bounds steps from below, times a t of at most e^10, or of 1e4 times as much for AWQ.
      const double noise = step * 0x1p-22 * std::max(zero, top) + 0x3p-23 * std::fabs(weight) + 3e-34;
      const double error = std::fabs(value(q, i, j) - weight);
      double nearest = error;
      const std::size_t code = q.code_matrix()(i, j); // levels rise: if its neighbours are no nearer, no other is
      for (const std::size_t other : {code - 1, code + 1})
        if (other < levels) nearest = std::min(nearest, std::fabs(value_of_code(q, i, j, other) - weight));
      if (error <= step * gap + noise && error <= nearest + 2 * noise) continue;
      INFO(method.name << " " << q.format.bits << " bits, " << kind.name << " " << m.rows << " x " << m.cols << " at "
                       << i << ", " << j << " step " << step << " zero " << zero << " weight " << weight);
      REQUIRE(error <= step * gap + noise);
      REQUIRE(error <= nearest + 2 * noise);
    }
}

} // namespace

TEST_CASE("every method brings every weight back to the nearest level, within half a step") {
  sampled combinations;
  for (const auto& [rows, cols] : ragged_shapes) {
    const method_runs runs{cols};
    const std::vector<named_matrix> kinds = every_kind(rows, cols, 41);
    for (const sinq::method_info& method : sinq::method_table)
      for (const int bits : sinq::supported_bits)
        for (const bool symmetric : {false, true})
          for (const std::size_t tile_rows : {0u, 4u}) {
            auto options = runs.find(method, bits, symmetric);
            if (!options || feeds_back(method)) continue;
            options->group_size = 48;
            options->tile_rows = tile_rows;
            options->aux = sinq::aux_dtype::f32;
            for (const named_matrix& kind : kinds)
              if (combinations.take()) check_errors(kind, method, quantized(kind.m.view(), *options));
          }
  }
}

TEST_CASE("every method's result can be stored and comes back finite and near") {
  for (const auto& [rows, cols] : {std::pair{17, 100}, std::pair{9, 257}, std::pair{1, 64}}) {
    const method_runs runs{static_cast<std::size_t>(cols)};
    for (const named_matrix& kind : every_kind(static_cast<std::size_t>(rows), static_cast<std::size_t>(cols), 43))
      for (const sinq::method_info& method : sinq::method_table)
        for (const sinq::aux_dtype aux : {sinq::aux_dtype::f16, sinq::aux_dtype::bf16, sinq::aux_dtype::f32}) {
          auto options = runs.usual(method);
          options.aux = aux;
          const auto packed = sinq::pack(quantized(kind.m.view(), options));
          INFO(method.name << " " << kind.name << " " << rows << " x " << cols);
          REQUIRE(packed);
          double square = 0, error = 0;
          const std::vector<float> back = sinq::dequantize(*packed);
          for (std::size_t n = 0; n < back.size(); ++n) {
            REQUIRE(std::isfinite(back[n]));
            square += std::pow(double{kind.m.values[n]}, 2);
            error += std::pow(double{kind.m.values[n]} - double{back[n]}, 2);
          }
          // Denormals have few bits to keep. With inputs, weights that meet small ones count for little.
          if (kind.name != "denormal")
            CHECK(error <= (method.needs_inputs || feeds_back(method) ? 1.0 : 0.15) * square);
        }
  }
}

TEST_CASE("tiny and huge weights are quantized as well as those of ordinary size") {
  const matrix m = gaussian(32, 128, 44);
  const method_runs runs{m.cols};
  const auto relative_error = [](const matrix& w, const sinq::quantized_matrix& q) {
    const matrix seen = as_rotated(w, q.format);
    double square = 0, error = 0;
    for (std::size_t i = 0; i < w.rows; ++i)
      for (std::size_t j = 0; j < w.cols; ++j) {
        square += std::pow(double{seen(i, j)}, 2);
        error += std::pow(double{seen(i, j)} - value(q, i, j), 2);
      }
    return std::sqrt(error / square);
  };
  for (const sinq::method_info& method : sinq::method_table) {
    const double usual = relative_error(m, quantized(m.view(), runs.usual(method)));
    for (const double size : {1e-30, 1e-8, 1e-4, 50.0, 1e8, 1e30}) {
      matrix other = m;
      for (float& v : other.values) v = static_cast<float>(double{v} * size);
      INFO(method.name << " times " << size);
      // AWQ's bounds on its factors are absolute, and HQQ lets outliers of large weights be: another solution
      CHECK(relative_error(other, quantized(other.view(), runs.usual(method))) < 1.25 * usual);
    }
  }
}

TEST_CASE("the result does not depend on threads") {
  const matrix m = with_outliers(70, 333, 5);
  const method_runs runs{m.cols};
  sinq::serial_executor serial;
  for (const sinq::method_info& method : sinq::method_table)
    for (const std::size_t tile_rows : {0u, 32u}) {
      auto options = runs.usual(method);
      options.group_size = 32;
      options.tile_rows = tile_rows;
      options.run.threads = &serial;
      const auto reference = quantized(m.view(), options);
      for (const std::size_t threads : {1u, 2u, 3u, 7u}) {
        sinq::thread_pool pool{threads};
        options.run.threads = &pool;
        INFO(method.name << " on " << threads << " threads");
        CHECK(same_result(reference, quantized(m.view(), options)));
      }
    }
}

TEST_CASE("permuting rows permutes the result") {
  const matrix m = with_outliers(40, 130, 6);
  const method_runs runs{m.cols};
  matrix reversed = m;
  for (std::size_t i = 0; i < m.rows; ++i)
    for (std::size_t j = 0; j < m.cols; ++j) reversed(i, j) = m(m.rows - 1 - i, j);
  for (const sinq::method_info& method : sinq::method_table) {
    const auto a = quantized(m.view(), runs.usual(method));
    const auto b = quantized(reversed.view(), runs.usual(method));
    for (std::size_t i = 0; i < m.rows; ++i) {
      const std::size_t other = m.rows - 1 - i;
      INFO(method.name);
      CHECK(same_codes(a.code_matrix().row(i), b.code_matrix().row(other), 1.0));
      // column sums run in another order, in f32: the bound of scaled_stddev, met in the group of two columns
      CHECK(close_each(a.scale_matrix().row(i), b.scale_matrix().row(other), 2e-5));
    }
  }
}

TEST_CASE("a tile of rows is quantized as if it stood alone") {
  const matrix m = with_outliers(45, 100, 61);
  const method_runs runs{m.cols};
  for (const sinq::method_info& method : sinq::method_table) {
    if (method.needs_inputs || method.id == sinq::method::hqq) continue; // what they minimise is of the whole matrix
    auto options = runs.usual(method);
    options.group_size = 20;
    options.tile_rows = 20;
    const auto whole = quantized(m.view(), options);
    CHECK(whole.format.row_tiles() == 3);
    for (std::size_t tile = 0; tile < 3; ++tile) {
      const std::size_t rows = std::min<std::size_t>(20, m.rows - 20 * tile);
      const auto part = quantized(m.view().block(20 * tile, 0, rows, m.cols), options);
      INFO(method.name << " tile " << tile);
      for (std::size_t i = 0; i < rows; ++i)
        for (std::size_t j = 0; j < m.cols; ++j)
          if (value(whole, 20 * tile + i, j) != value(part, i, j))
            REQUIRE(value(whole, 20 * tile + i, j) == value(part, i, j));
    }
  }
}

TEST_CASE("scaling by a power of two scales the result and keeps the codes") {
  using sinq::method;
  const matrix usual = with_outliers(64, 128, 7);
  const matrix small = scaled(usual, -12); // for HQQ, which looks at the size of errors beyond 0.15
  const method_runs runs{usual.cols};
  for (const sinq::method_info& info : sinq::method_table)
    for (const bool symmetric : {false, true}) {
      auto options = runs.find(info, info.bits != 0 ? info.bits : 4, symmetric);
      if (!options || info.needs_inputs) continue; // AWQ's bounds on its factors are absolute
      options->aux = sinq::aux_dtype::f32;
      const matrix& m = moves_zeros(info) ? small : usual;
      const auto a = quantized(m.view(), *options);
      for (const int power : {-64, -33, -16, -10, -7, -1, 1, 3, 8, 16, 40, 64}) {
        if (moves_zeros(info) && power > 3) continue;
        const auto b = quantized(scaled(m, power).view(), *options);
        INFO(info.name << ", 2^" << power);
        // The reference's margin of 1e-6 on the target is absolute, so outside whole periods of the window codes may
        // differ at rounding ties.
        const bool exact = !info.has_col_scale || power % 16 == 0;
        const double equal = exact ? 1.0 : moves_zeros(info) || feeds_back(info) ? 0.999 : 0.9998;
        CHECK(same_codes(b.codes.span(), std::as_const(a.codes).span(), equal));
        for (std::size_t j = 0; j < m.cols; ++j)
          CHECK(value(b, 5, j) == Approx(std::ldexp(value(a, 5, j), power)).epsilon(0.02));
      }
    }
}

TEST_CASE("every element type gives the result of its floats") {
  const matrix m = with_outliers(20, 70, 8);
  const method_runs runs{m.cols};
  const auto check = [&]<class T>(const std::vector<T>& typed) {
    std::vector<float> floats(typed.size());
    for (std::size_t n = 0; n < typed.size(); ++n) floats[n] = sinq::to_float(typed[n]);
    for (const sinq::method_info& method : sinq::method_table) {
      const auto options = runs.usual(method);
      CHECK(same_result(quantized(sinq::matrix_view<const T>{typed.data(), m.rows, m.cols}, options),
                        quantized(sinq::matrix_view<const float>{floats.data(), m.rows, m.cols}, options)));
    }
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
  std::vector<sinq::byte> bytes(part.values.size() * sizeof(float) + 1);
  std::memcpy(bytes.data() + 1, part.values.data(), part.values.size() * sizeof(float));
  const method_runs runs{part.cols};
  for (const sinq::method_info& method : sinq::method_table) {
    const auto options = runs.usual(method);
    const auto expected = quantized(part.view(), options);
    CHECK(same_result(expected, quantized(m.view().block(0, 7, 12, 50), options)));
    CHECK(same_result(expected, quantized(sinq::weight_view{bytes.data() + 1, sinq::dtype::f32, 12, 50}, options)));
  }
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
  const method_runs runs{good.cols};
  for (const sinq::method_info& method : sinq::method_table) {
    INFO(method.name);
    const auto options = runs.usual(method);
    auto other = options;
    refused({}, options, sinq::errc::empty_matrix, "0 x 0");
    other.bits = 7;
    refused(good.view(), other, sinq::errc::invalid_argument, "bits is 7");
    other = options;
    other.group_size = 0;
    refused(good.view(), other, sinq::errc::invalid_argument, "group_size is 0");
    for (const float poison : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                               -std::numeric_limits<float>::infinity()}) {
      matrix bad = good;
      bad(3, 190) = poison; // first in row-major order, though a later tile than the next
      bad(5, 2) = poison;
      refused(bad.view(), options, sinq::errc::non_finite, "row 3, column 190 of 70 x 200");
    }
    other = options;
    other.symmetric = true;
    if (method.needs_zero) refused(good.view(), other, sinq::errc::invalid_argument, "stores zero points");
    other = options;
    other.bits = 5;
    if (method.bits != 0) refused(good.view(), other, sinq::errc::invalid_argument, "the only width of");
    other = options;
    other.inputs = nullptr;
    if (method.needs_inputs) refused(good.view(), other, sinq::errc::invalid_argument, "needs input moments");
    const sinq::input_moments of_other_width = some_inputs(10);
    other.inputs = &of_other_width;
    if (method.needs_inputs) refused(good.view(), other, sinq::errc::invalid_argument, "10 columns, expected 200");
    other = options;
    other.levels = other.levels.first(8);
    if (method.needs_levels) refused(good.view(), other, sinq::errc::invalid_argument, "8 levels for");
    if (method.has_col_scale) {
      other = options;
      other.sinkhorn.iterations = -2;
      if (method.id != sinq::method::awq) refused(good.view(), other, sinq::errc::invalid_argument, "iterations is -2");
    }
    if (moves_zeros(method)) {
      other = options;
      other.solver.lp_norm = 0;
      refused(good.view(), other, sinq::errc::invalid_argument, "lp_norm is 0");
    }
  }
}

TEST_CASE("sinq balances by the alternating rule, and by the reference's where constants were fitted to it") {
  const matrix m = with_outliers(96, 128, 17);
  using enum sinq::sinkhorn_rule;
  using enum sinq::refine_mode;
  for (const auto& [method, mode, usual] : {std::tuple{sinq::method::sinq, none, alternating},
                                            {sinq::method::sinq_nf4, none, alternating},
                                            {sinq::method::sinq, weights, reference},
                                            {sinq::method::sinq_hqq, none, reference}}) {
    sinq::quantize_options options{.method = method, .refine = mode};
    const auto chosen = quantized(m.view(), options);
    for (const sinq::sinkhorn_rule rule : {alternating, reference}) {
      options.sinkhorn.rule = rule;
      CHECK(same_result(chosen, quantized(m.view(), options)) == (rule == usual));
    }
  }
}

TEST_CASE("progress is told and can cancel") {
  const matrix m = gaussian(64, 640, 11);
  const method_runs runs{m.cols};
  for (const sinq::method_info& method : sinq::method_table) {
    INFO(method.name);
    double last = 0;
    auto options = runs.usual(method);
    options.run.progress = [&](double done) {
      CHECK(done >= last);
      last = done;
      return true;
    };
    (void)quantized(m.view(), options);
    CHECK(last == Approx(1.0));
    options.run.progress = [](double) { return false; };
    const auto cancelled = sinq::quantize(m.view(), options);
    REQUIRE_FALSE(cancelled);
    CHECK(cancelled.error().code == sinq::errc::cancelled);
  }
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
    sinq::quantize_options options{.method = method};
    options.refine = sinq::refine_mode::none;
    const auto q = quantized(m.view(), options);
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
