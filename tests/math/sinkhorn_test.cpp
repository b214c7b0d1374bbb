#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/oracle.hpp"
#include "support/random_matrices.hpp"

#include <sinq/math/sinkhorn.hpp>

#include <cmath>
#include <numeric>

using namespace sinq_test;

namespace {

using enum sinq::sinkhorn_rule;

const sinq::sinkhorn_normalizer<float> normalizer;

sinq::normalized_matrix<float> balance(const matrix& m, const sinq::sinkhorn_options& options = {.rule = reference}) {
  auto n = sinq::sinkhorn_normalizer<float>{options}(m.view());
  REQUIRE(n);
  return *std::move(n);
}

template <class T>
std::span<const T> all(const std::vector<T>& v) {
  return v;
}

} // namespace

TEST_CASE("sinkhorn agrees with the oracle in double") {
  for (const std::uint64_t seed : {1u, 2u, 3u, 4u, 5u, 6u}) {
    const matrix m = with_outliers(96, 64, seed);
    const auto n = balance(m);
    const auto exact = oracle::sinkhorn(oracle::to_double(m.view()));
    const std::vector<double> row(exact.row_scale.begin(), exact.row_scale.end());
    const std::vector<double> col(exact.col_scale.begin(), exact.col_scale.end());
    INFO("seed " << seed << ", imbalance " << n.report.imbalance_after);
    if (n.report.imbalance_after < 1.001f) continue; // converged: rounding picks one of two equivalent iterates
    CHECK(close_each(all(n.row_scale), all(row), 1e-5));
    CHECK(close_each(all(n.col_scale), all(col), 1e-5));
    CHECK(n.report.imbalance_after == Approx(exact.imbalance_after).epsilon(1e-4));
  }
}

TEST_CASE("sinkhorn in double agrees with the oracle to rounding") {
  const matrix m = with_outliers(40, 50, 8);
  std::vector<double> values(m.values.begin(), m.values.end());
  const auto n = sinq::sinkhorn_normalizer<double>{{.rule = reference}}({values.data(), 40, 50});
  REQUIRE(n);
  const auto exact = oracle::sinkhorn(oracle::to_double(m.view()));
  // the options hold their constants in float, 0.7f and 1e-6f among them: 3e-8 relative
  CHECK(n->report.imbalance_after == Approx(exact.imbalance_after).epsilon(1e-5));
  for (std::size_t i = 0; i < 40; ++i)
    CHECK(n->row_scale[i] == Approx(exact.row_scale(static_cast<oracle::Index>(i))).epsilon(1e-5));
}

TEST_CASE("the alternating rule agrees with the oracle") {
  for (const auto& [rows, seed] : {std::pair{96u, 1u}, {96u, 2u}, {96u, 3u}, {96u, 4u}, {96u, 5u}, {1100u, 6u}})
    for (const int passes : {1, 2, 3, 16}) {
      const matrix m = with_outliers(rows, 64, seed);
      const auto exact = oracle::alternating(oracle::to_double(m.view()), passes);
      const std::vector<double> row(exact.row_scale.begin(), exact.row_scale.end());
      const std::vector<double> col(exact.col_scale.begin(), exact.col_scale.end());
      const auto n = balance(m, {.iterations = passes});
      INFO(rows << " rows, seed " << seed << ", " << passes << " passes, imbalance " << n.report.imbalance_after);
      // sums of N / 16 terms a lane and a few roundings a pass, which the next pass forgets
      const double tolerance = 2 * 0x1p-24 * (rows / 16.0 + 10);
      CHECK(close_each(all(n.row_scale), all(row), tolerance));
      CHECK(close_each(all(n.col_scale), all(col), tolerance));
      CHECK(n.report.imbalance_after == Approx(exact.imbalance_after).epsilon(1e-5));
      CHECK(n.report.imbalance_before == Approx(exact.imbalance_before).epsilon(1e-5));
      std::vector<float> late = n.col_scale; // as if columns were divided by rows one pass behind
      late[0] *= 1.001f;
      CHECK_FALSE(close_each(all(late), all(col), tolerance));
      const auto in_double = balance(m, {.iterations = passes, .f64_sums = true});
      CHECK(close_each(all(in_double.row_scale), all(row), 1e-7));
      CHECK(close_each(all(in_double.col_scale), all(col), 1e-7));
    }
}

TEST_CASE("the alternating rule evens tiles out in half as many passes") {
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
    const matrix m = with_outliers(256, 64, seed);
    const auto ours = balance(m, {}), theirs = balance(m);
    INFO("seed " << seed << ": " << ours.report.evaluated << ", " << theirs.report.evaluated);
    CHECK(ours.report.imbalance_after < 1.15f); // a pass that found 1.5 or less leaves some 1.05
    CHECK(2 * ours.report.evaluated <= theirs.report.evaluated);
  }
}

TEST_CASE("the scales of the alternating rule are in their ranges and lead back") {
  for (const auto& [rows, cols] : ragged_shapes)
    for (const named_matrix& kind : every_kind(rows, cols, 21)) {
      INFO(kind.name << " " << rows << " x " << cols);
      const auto n = balance(kind.m, {});
      CHECK(n.report.evaluated <= 16);
      for (const float scale : n.row_scale) CHECK((scale >= 0x1p-126f && scale <= 0x1p126f));
      CHECK(*std::min_element(n.col_scale.begin(), n.col_scale.end()) < 2.0f);
      for (const float scale : n.col_scale) CHECK((scale >= 1.0f && scale <= 0x1p15f));
      for (std::size_t i = 0; i < rows; ++i)
        for (std::size_t j = 0; j < cols; ++j) {
          const double back = double{n.matrix()(i, j)} * double{n.row_scale[i]} * double{n.col_scale[j]};
          const double step = 0x1p-149 * std::max(1.0, double{n.row_scale[i]}) * double{n.col_scale[j]};
          REQUIRE(std::fabs(back - double{kind.m(i, j)}) <= 4e-7 * std::fabs(double{kind.m(i, j)}) + 2 * step);
        }
    }
}

TEST_CASE("the alternating rule sees no difference between W and 2^k W") {
  const matrix m = with_outliers(48, 64, 32);
  const auto ordinary = balance(m, {});
  for (const int power : {-96, -64, -33, -7, 3, 50, 96}) {
    matrix scaled = m;
    for (float& value : scaled.values) value = std::ldexp(value, power);
    const auto n = balance(scaled, {});
    INFO("2^" << power);
    // beyond, squares overflow or underflow and are summed in double
    if (std::abs(power) <= 50) CHECK(n.col_scale == ordinary.col_scale);
    CHECK(close_each(all(n.col_scale), all(ordinary.col_scale), 1e-6));
    for (std::size_t i = 0; i < m.rows; ++i)
      CHECK(n.row_scale[i] == Approx(std::ldexp(double{ordinary.row_scale[i]}, power)).epsilon(1e-6));
  }
}

TEST_CASE("a row that is all mean does not outweigh the others") {
  matrix m = gaussian(64, 64, 9);
  const auto before = balance(m, {});
  for (std::size_t j = 0; j < 64; ++j) m(5, j) = 1000.0f;
  const auto n = balance(m, {});
  CHECK(n.row_scale[5] == Approx(1000.0 / 4 * std::sqrt(64.0 / 63)).epsilon(0.05));
  for (std::size_t j = 0; j < 64; ++j) CHECK(n.col_scale[j] == Approx(before.col_scale[j]).epsilon(0.2));
}

TEST_CASE("rows in parts give the scales of the whole tile") {
  const matrix m = with_outliers(1100, 70, 3);
  sinq::detail::column_tile tile;
  tile.assign(m.view());
  const auto run = [&](std::size_t part) {
    sinq::detail::alternating_scales scales;
    scales.start(m.rows, m.cols);
    for (int pass = 0; pass < 3; ++pass) {
      for (std::size_t i = 0; i < m.rows; i += part) scales.add_rows(tile, i, std::min(part, m.rows - i));
      (void)scales.end_pass(m.rows);
    }
    return std::vector<float>(scales.col_scale().begin(), scales.col_scale().end());
  };
  const std::vector<float> whole = run(m.rows);
  for (const std::size_t part : {16u, 32u, 64u, 80u, 512u, 1024u}) CHECK(run(part) == whole);
}

TEST_CASE("sinkhorn never raises the imbalance and its scales lead back") {
  for (const auto& [rows, cols] : ragged_shapes)
    for (const named_matrix& kind : every_kind(rows, cols, 21)) {
      INFO(kind.name << " " << rows << " x " << cols);
      const auto n = balance(kind.m);
      CHECK(n.report.imbalance_after <= n.report.imbalance_before);
      // The matrix that is returned is divided, the iterate was multiplied by reciprocals: a few ulp apart. Where a
      // spread is 0 up to rounding its ratio to others is noise, and where it is denormal it has no precision.
      const float after = sinq::imbalance(n.matrix());
      if (n.report.imbalance_before < 1e9f && kind.name != "denormal" && kind.name != "tiny")
        CHECK(after <= n.report.imbalance_before * 1.0001f);
      for (const float scale : n.row_scale) CHECK((scale >= 0.74f && scale <= 22027.0f));
      for (const float scale : n.col_scale) CHECK((scale >= 0.74f && scale <= 22027.0f));
      for (std::size_t i = 0; i < rows; ++i)
        for (std::size_t j = 0; j < cols; ++j) {
          const double back = double{n.matrix()(i, j)} * double{n.row_scale[i]} * double{n.col_scale[j]};
          // 4 half-ulp roundings, or as many denormal steps, stretched by the scales
          const double tolerance = 4e-7 * std::fabs(double{kind.m(i, j)}) + 1e-36;
          REQUIRE(std::fabs(back - double{kind.m(i, j)}) <= tolerance);
        }
    }
}

TEST_CASE("sinkhorn permutes with its rows") {
  const matrix m = with_outliers(48, 64, 31);
  matrix reversed = m;
  for (std::size_t i = 0; i < m.rows; ++i)
    for (std::size_t j = 0; j < m.cols; ++j) reversed(i, j) = m(m.rows - 1 - i, j);
  const auto a = balance(m);
  auto b = balance(reversed);
  std::reverse(b.row_scale.begin(), b.row_scale.end());
  CHECK(close_each(all(a.row_scale), all(b.row_scale), 1e-6));
  CHECK(close_each(all(a.col_scale), all(b.col_scale), 1e-6));
}

TEST_CASE("tiny and huge matrices are balanced like ordinary ones") {
  const matrix m = with_outliers(48, 64, 32);
  const auto ordinary = balance(m);
  REQUIRE(ordinary.report.imbalance_after < 0.2f * ordinary.report.imbalance_before);
  for (const int power : {-96, -64, -32, -16, 16, 32, 64}) {
    matrix scaled = m;
    for (float& value : scaled.values) value = std::ldexp(value, power);
    const auto n = balance(scaled);
    INFO("2^" << power);
    CHECK(n.row_scale == ordinary.row_scale); // whole periods of the window: the very same iteration
    CHECK(n.col_scale == ordinary.col_scale);
  }
  for (const int power : {-100, -27, -11, -5, 3, 9, 50}) {
    matrix scaled = m;
    for (float& value : scaled.values) value = std::ldexp(value, power);
    INFO("2^" << power);
    CHECK(balance(scaled).report.imbalance_after < 1.2f * ordinary.report.imbalance_after);
  }
}

TEST_CASE("a side of length 1 is left alone by the alternating rule") {
  const auto row = balance(gaussian(1, 64, 5), {});
  for (const float scale : row.col_scale) CHECK(scale == 1.0f);
  const auto col = balance(gaussian(64, 1, 5), {});
  for (const float scale : col.row_scale) CHECK(scale == 1.0f);
  for (const float scale : col.col_scale) CHECK(scale == 1.0f);
  CHECK(balance(matrix{1, 1, 4.0f}, {}).values == std::vector<float>{4.0f});
}

TEST_CASE("a side of length 1 is left alone") {
  const auto row = balance(gaussian(1, 64, 5));
  for (const float scale : row.col_scale) CHECK(scale == 1.0f);
  const auto col = balance(gaussian(64, 1, 5));
  for (const float scale : col.row_scale) CHECK(scale == 1.0f);
  const auto one = balance(matrix{1, 1, 4.0f});
  CHECK(one.values == std::vector<float>{4.0f});
}

TEST_CASE("the options of sinkhorn act") {
  const matrix m = with_outliers(48, 64, 33);
  for (const sinq::sinkhorn_rule rule : {alternating, reference})
    CHECK(balance(m, {.rule = rule, .iterations = 0}).values == m.values);
  CHECK(balance(m, {.rule = reference, .iterations = 1}).values == m.values); // the first iterate is the matrix itself
  CHECK(balance(m, {.rule = reference, .iterations = 3}).report.evaluated == 3);
  CHECK(balance(m, {.iterations = 1}).report.evaluated == 1);
  const auto free_run = balance(m, {.rule = reference, .stop_when_worse = false});
  CHECK(free_run.report.evaluated == 16);
  CHECK(free_run.report.imbalance_after <= balance(m).report.imbalance_after);
  for (const float scale : balance(m, {.rule = reference, .log_scale_max = 0.1f}).col_scale)
    CHECK(scale <= std::exp(0.1f));
  CHECK(balance(m, {.rule = reference, .iterations = 2, .ratio_min = 1.0f, .ratio_max = 1.0f}).values == m.values);
}

TEST_CASE("sinkhorn refuses what it cannot balance") {
  const auto message = [](const auto& outcome, sinq::errc code) {
    REQUIRE_FALSE(outcome);
    CHECK(outcome.error().code == code);
    return outcome.error().message;
  };
  CHECK(message(normalizer(sinq::matrix_view<const float>{}), sinq::errc::empty_matrix).find("0 x 0") !=
        std::string::npos);
  matrix m = gaussian(4, 5, 1);
  m(2, 3) = std::numeric_limits<float>::quiet_NaN();
  m(3, 0) = std::numeric_limits<float>::infinity();
  CHECK(message(normalizer(m.view()), sinq::errc::non_finite).find("row 2, column 3") != std::string::npos);
  for (const sinq::sinkhorn_options& bad : {sinq::sinkhorn_options{.iterations = -1},
                                            {.ratio_min = 0.0f},
                                            {.ratio_max = 0.9f},
                                            {.log_scale_min = 0.1f},
                                            {.log_scale_max = 41.0f},
                                            {.sigma_min = 0.0f},
                                            {.sigma_min = 2.0f, .sigma_max = 1.0f},
                                            {.target_margin = -1.0f}})
    CHECK_FALSE(
        message(sinq::sinkhorn_normalizer<float>{bad}(gaussian(4, 5, 1).view()), sinq::errc::invalid_argument).empty());
}
