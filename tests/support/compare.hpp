#pragma once

/// Comparators for tests. Each returns a verdict that says what differed most and where, so that a failing CHECK shows
/// it; sizes that differ, NaN and infinity always fail. compare_test.cpp plants a bug for each.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <ostream>
#include <span>
#include <sstream>
#include <string>

namespace sinq_test {

/// Whether two things agree, and the sentence to show if not.
struct verdict {
  bool agrees = true;
  std::string why;

  explicit operator bool() const { return agrees; }
  friend std::ostream& operator<<(std::ostream& to, const verdict& v) {
    return to << (v.agrees ? std::string{"agrees"} : v.why);
  }
};

namespace detail {

template <class... Pieces>
[[nodiscard]] verdict differs(const Pieces&... pieces) {
  std::ostringstream why;
  why.precision(9);
  (why << ... << pieces);
  return {false, why.str()};
}

} // namespace detail

/// max |a - b| <= tolerance * max |b|: agreement relative to the largest entry of the expected values.
template <class A, class B>
[[nodiscard]] verdict close_to_largest(std::span<const A> actual, std::span<const B> expected, double tolerance) {
  if (actual.size() != expected.size()) return detail::differs("sizes ", actual.size(), " and ", expected.size());
  double largest = 0.0;
  for (const B value : expected) largest = std::max(largest, std::fabs(static_cast<double>(value)));
  if (!std::isfinite(largest)) return detail::differs("an expected value is infinite");
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(actual[i]) - static_cast<double>(expected[i]));
    if (!(difference <= tolerance * largest))
      return detail::differs("entry ", i, " is ", actual[i], ", expected ", expected[i], " within ",
                             tolerance * largest);
  }
  return {};
}

/// |a - b| <= tolerance * |b| for every entry.
template <class A, class B>
[[nodiscard]] verdict close_each(std::span<const A> actual, std::span<const B> expected, double tolerance) {
  if (actual.size() != expected.size()) return detail::differs("sizes ", actual.size(), " and ", expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double a = static_cast<double>(actual[i]);
    const double b = static_cast<double>(expected[i]);
    if (!std::isfinite(b) || !(std::fabs(a - b) <= tolerance * std::fabs(b)))
      return detail::differs("entry ", i, " is ", a, ", expected ", b, ", relative difference ",
                             std::fabs(a - b) / std::fabs(b));
  }
  return {};
}

/// At least `least_equal` of all codes are equal, and the others differ by one level.
template <class A, class B>
[[nodiscard]] verdict same_codes(std::span<const A> actual, std::span<const B> expected, double least_equal) {
  if (actual.size() != expected.size()) return detail::differs("sizes ", actual.size(), " and ", expected.size());
  std::size_t unequal = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double distance = std::fabs(static_cast<double>(actual[i]) - static_cast<double>(expected[i]));
    if (!(distance <= 1.0))
      return detail::differs("code ", i, " is ", +actual[i], ", expected ", +expected[i], " or one level beside it");
    if (distance > 0.0) ++unequal;
  }
  const double equal = 1.0 - static_cast<double>(unequal) / static_cast<double>(actual.size());
  if (unequal > 0 && !(equal >= least_equal))
    return detail::differs(unequal, " of ", actual.size(), " codes differ, expected at least ", least_equal, " equal");
  return {};
}

/// Number of floats from a to b along the number line; -0 and +0 are one. NaN is infinitely far from everything.
[[nodiscard]] inline std::uint64_t ulp_distance(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) return static_cast<std::uint64_t>(-1);
  const auto place = [](float x) -> std::int64_t {
    const auto bits = std::bit_cast<std::uint32_t>(x);
    const std::int64_t magnitude = bits & 0x7fffffffu;
    return (bits >> 31) != 0 ? -magnitude : magnitude;
  };
  const std::int64_t distance = place(a) - place(b);
  return static_cast<std::uint64_t>(distance < 0 ? -distance : distance);
}

/// Every entry within `most` floats of the expected one.
[[nodiscard]] inline verdict within_ulps(std::span<const float> actual, std::span<const float> expected,
                                         std::uint64_t most) {
  if (actual.size() != expected.size()) return detail::differs("sizes ", actual.size(), " and ", expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i)
    if (const std::uint64_t distance = ulp_distance(actual[i], expected[i]); distance > most)
      return detail::differs("entry ", i, " is ", actual[i], ", expected ", expected[i], ", ", distance, " ulps apart");
  return {};
}

} // namespace sinq_test
