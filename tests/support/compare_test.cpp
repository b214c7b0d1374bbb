#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/random_matrices.hpp"

#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

using namespace sinq_test;

namespace {

using floats = std::vector<float>;
using comparator = std::function<verdict(std::span<const float>, std::span<const float>)>;

struct named_comparator {
  const char* name;
  comparator compare;
};

const std::vector<named_comparator>& comparators() {
  static const std::vector<named_comparator> all{
      {"close_to_largest", [](auto a, auto b) { return close_to_largest(a, b, 1e-5); }},
      {"close_each", [](auto a, auto b) { return close_each(a, b, 1e-5); }},
      {"same_codes", [](auto a, auto b) { return same_codes(a, b, 0.9999); }},
      {"within_ulps", [](auto a, auto b) { return within_ulps(a, b, 2); }},
  };
  return all;
}

floats whole_numbers() {
  floats values(1000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 16) + 1.0f;
  return values;
}

} // namespace

TEST_CASE("comparators accept what is equal") {
  for (const auto& [name, compare] : comparators()) {
    CAPTURE(name);
    CHECK(compare(whole_numbers(), whole_numbers()));
    CHECK(compare(floats{}, floats{}));
  }
}

TEST_CASE("comparators notice one changed entry, first, middle or last") {
  for (const auto& [name, compare] : comparators())
    for (const std::size_t where : {0u, 500u, 999u}) {
      CAPTURE(name, where);
      floats changed = whole_numbers();
      changed[where] += 2.0f;
      CHECK_FALSE(compare(changed, whole_numbers()));
      CHECK_FALSE(compare(whole_numbers(), changed));
    }
}

TEST_CASE("comparators never accept NaN, not even against NaN") {
  for (const auto& [name, compare] : comparators()) {
    CAPTURE(name);
    floats broken = whole_numbers();
    broken[7] = std::numeric_limits<float>::quiet_NaN();
    CHECK_FALSE(compare(broken, whole_numbers()));
    CHECK_FALSE(compare(whole_numbers(), broken));
    CHECK_FALSE(compare(broken, broken));
  }
}

TEST_CASE("comparators never accept an infinity for a number") {
  for (const auto& [name, compare] : comparators()) {
    CAPTURE(name);
    floats broken = whole_numbers();
    broken[7] = std::numeric_limits<float>::infinity();
    CHECK_FALSE(compare(broken, whole_numbers()));
    CHECK_FALSE(compare(whole_numbers(), broken));
  }
}

TEST_CASE("comparators notice sizes that differ") {
  for (const auto& [name, compare] : comparators()) {
    CAPTURE(name);
    floats shorter = whole_numbers();
    shorter.pop_back();
    CHECK_FALSE(compare(shorter, whole_numbers()));
    CHECK_FALSE(compare(whole_numbers(), shorter));
    CHECK_FALSE(compare(floats{}, whole_numbers()));
  }
}

TEST_CASE("a verdict says what differed") {
  const floats actual{1.0f, 2.5f};
  const floats expected{1.0f, 2.0f};
  const verdict v = close_each(std::span<const float>{actual}, std::span<const float>{expected}, 1e-5);
  CHECK(v.why == "entry 1 is 2.5, expected 2, relative difference 0.25");
}

TEST_CASE("close_to_largest measures by the largest entry and close_each by each") {
  const floats actual{1000.0f, 1.001f};
  const floats expected{1000.0f, 1.0f};
  const std::span<const float> a{actual};
  const std::span<const float> b{expected};
  CHECK(close_to_largest(a, b, 1e-5));
  CHECK_FALSE(close_each(a, b, 1e-5));
  CHECK_FALSE(close_to_largest(a, b, 1e-7));
  CHECK(close_each(a, b, 2e-3));
}

TEST_CASE("close_each accepts zero only for zero") {
  const floats zero{0.0f};
  const floats tiny{1e-30f};
  const std::span<const float> z{zero};
  const std::span<const float> t{tiny};
  CHECK(close_each(z, z, 1e-5));
  CHECK_FALSE(close_each(t, z, 1e-5));
  CHECK_FALSE(close_each(z, t, 1e-5));
}

TEST_CASE("same_codes allows few codes to differ and by one level only") {
  const std::vector<std::uint8_t> expected(20000, 7);
  const std::span<const std::uint8_t> e{expected};
  std::vector<std::uint8_t> actual = expected;
  actual[0] = 8;
  actual[19999] = 6;
  CHECK(same_codes(std::span<const std::uint8_t>{actual}, e, 0.9999));
  actual[5] = 8;
  CHECK_FALSE(same_codes(std::span<const std::uint8_t>{actual}, e, 0.9999));
  actual = expected;
  actual[5] = 9;
  CHECK_FALSE(same_codes(std::span<const std::uint8_t>{actual}, e, 0.5));
}

TEST_CASE("ulp distance counts floats") {
  using limits = std::numeric_limits<float>;
  CHECK(ulp_distance(1.0f, 1.0f) == 0);
  CHECK(ulp_distance(1.0f, std::nextafter(1.0f, 2.0f)) == 1);
  CHECK(ulp_distance(0.0f, -0.0f) == 0);
  CHECK(ulp_distance(limits::denorm_min(), -limits::denorm_min()) == 2);
  CHECK(ulp_distance(limits::max(), limits::infinity()) == 1);
  CHECK(ulp_distance(limits::lowest(), limits::max()) == 2 * 0x7f7fffffull);
  CHECK(ulp_distance(limits::quiet_NaN(), 1.0f) == static_cast<std::uint64_t>(-1));
}
