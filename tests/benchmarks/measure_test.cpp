#include "matmul/expected.hpp"
#include "measure/rotation.hpp"
#include "measure/rounds.hpp"
#include "support/catch.hpp"
#include "support/random_quantized.hpp"

#include <array>
#include <limits>

using namespace sinq_test;
using sinq_bench::spread;
using sinq_bench::subject;

namespace {

/// A subject that takes the next of these many seconds at each call, by a clock of its own making.
subject slow(double& now, std::vector<double> seconds, std::size_t& calls, double work = 1) {
  return {.call = [&now, seconds = std::move(seconds), &calls] { now += seconds[calls++ % seconds.size()]; },
          .work = work};
}

sinq_bench::round_options by(double& now, std::size_t rounds, double least_seconds) {
  return {.rounds = rounds, .least_seconds = least_seconds, .pause_seconds = 0, .clock = [&now] { return now; }};
}

/// Weights, tokens and their products in floats.
struct worked_product {
  explicit worked_product(std::size_t rows)
      : packed{*sinq::pack(random_quantized({.rows = rows, .cols = 96, .group_size = 32}, 3))},
        x{gaussian(5, 96, 4, 1.0)}, y{5, rows} {
    const std::vector<float> weights = sinq::dequantize(packed);
    for (std::size_t m = 0; m < 5; ++m)
      for (std::size_t i = 0; i < rows; ++i)
        for (std::size_t j = 0; j < 96; ++j) y(m, i) += x(m, j) * weights[i * 96 + j];
  }

  [[nodiscard]] sinq_bench::output_error error() const { return sinq_bench::expected_rows{packed, x.view()}(y.view()); }

  sinq::packed_matrix packed;
  matrix x, y;
};

} // namespace

TEST_CASE("medians and ends of samples") {
  const auto check = [](const std::vector<double>& samples, double median, double least, double most) {
    const spread s = sinq_bench::spread_of(samples);
    CHECK(s.median == median);
    CHECK(s.least == least);
    CHECK(s.most == most);
  };
  check({3}, 3, 3, 3);
  check({9, 1, 2}, 2, 1, 9); // the mean, 4, is what a median is not
  check({9, 1, 2, 4}, 3, 1, 9);
}

TEST_CASE("ratios are taken round by round") {
  // Both are twice as slow in the second round, as when the machine is: the ratio must not see it.
  const subject a{.call = {}, .work = 6, .seconds = {1, 2, 1}};
  const subject b{.call = {}, .work = 4, .seconds = {2, 4, 2}};
  for (const double ratio :
       {sinq_bench::rate_ratio(a, b).median, sinq_bench::rate_ratio(a, b).least, sinq_bench::rate_ratio(a, b).most})
    CHECK(ratio == 3);
  CHECK(sinq_bench::time_ratio(a, b).median == 0.5);
  CHECK(sinq_bench::time_ratio(a, b).most == 0.5);
  CHECK(a.rates() == std::vector<double>{6, 3, 6});
}

TEST_CASE("rounds give each subject its turn, long enough, and time nothing else") {
  double now = 0;
  std::size_t short_calls = 0, long_calls = 0;
  std::array subjects{slow(now, {1}, short_calls), slow(now, {40}, long_calls)};
  sinq_bench::run_rounds(subjects, by(now, 3, 10));
  CHECK(subjects[0].calls == 10);
  CHECK(subjects[1].calls == 1);
  CHECK(subjects[0].seconds == std::vector<double>{1, 1, 1});
  CHECK(subjects[1].seconds == std::vector<double>{40, 40, 40});
  CHECK(short_calls == 2 + 3 * (1 + 10));
  CHECK(long_calls == 2 + 3);
}

TEST_CASE("a sample is the mean of a turn's calls") {
  double now = 0;
  std::size_t calls = 0;
  // two to settle the number of calls, one that is not counted, then 1 + 3
  std::array subjects{slow(now, {5, 5, 100, 1, 3}, calls)};
  sinq_bench::run_rounds(subjects, by(now, 1, 10));
  CHECK(subjects[0].seconds == std::vector<double>{2});
}

TEST_CASE("matrices take turns") {
  CHECK(sinq_bench::matrices_in(100, 30) == 4);
  CHECK(sinq_bench::matrices_in(90, 30) == 3);
  CHECK(sinq_bench::matrices_in(0, 30) == 1);
  sinq_bench::rotation turn{3};
  for (const std::size_t expected : {1u, 2u, 0u, 1u}) CHECK(turn.next() == expected);
  sinq_bench::rotation alone{1};
  CHECK(alone.next() == 0);
}

TEST_CASE("a product that is wrong is seen before it is timed") {
  const worked_product right{64};
  CHECK(right.error().worst < 1e-5);
  CHECK(right.error().relative < 1e-6);

  worked_product one_is_off{64};
  double square = 0;
  for (const float value : one_is_off.y.values) square += double{value} * double{value};
  const double mean = std::sqrt(square / static_cast<double>(one_is_off.y.values.size()));
  one_is_off.y(3, 17) += static_cast<float>(0.1 * mean);
  CHECK(one_is_off.error().worst == Approx(0.1).epsilon(0.01));
  CHECK(one_is_off.error().relative > 1e-3);

  worked_product swapped{64};
  for (std::size_t i = 0; i < 64; ++i) std::swap(swapped.y(0, i), swapped.y(1, i));
  CHECK(swapped.error().worst > 1);

  worked_product not_a_number{64};
  not_a_number.y(0, 0) = std::numeric_limits<float>::quiet_NaN();
  CHECK(not_a_number.error().worst == std::numeric_limits<double>::infinity());
}

TEST_CASE("of many rows the first, the last and some between are looked at") {
  const worked_product right{200};
  CHECK(right.error().worst < 1e-5);
  for (const std::size_t row : {0u, 199u}) {
    worked_product off{200};
    off.y(4, row) += 100;
    CHECK(off.error().worst > 0.1);
  }
  std::size_t seen = 0;
  for (std::size_t row = 0; row < 200; ++row) {
    worked_product off{200};
    off.y(0, row) = std::numeric_limits<float>::infinity();
    seen += off.error().worst > 1 ? 1 : 0;
  }
  CHECK(seen == sinq_bench::expected_rows::most_rows);
}
