#include "support/catch.hpp"

#include <sinq/core/types.hpp>

#include <cmath>
#include <limits>
#include <string>

using sinq::dtype;

TEST_CASE("the dtype table is in the order of the enumeration and every name parses back") {
  for (std::size_t i = 0; i < sinq::dtype_table.size(); ++i) {
    const sinq::dtype_info& entry = sinq::dtype_table[i];
    CHECK(static_cast<std::size_t>(entry.type) == i);
    CHECK(sinq::parse_dtype(entry.name) == entry.type);
    CHECK(to_string(entry.type) == entry.name);
    CHECK(size_bytes(entry.type) == entry.size_bytes);
  }
  CHECK(sinq::dtype_table.back().type == dtype::boolean);
}

TEST_CASE("dtype sizes agree with their names") {
  for (const sinq::dtype_info& entry : sinq::dtype_table) {
    CAPTURE(std::string{entry.name});
    if (entry.type == dtype::boolean) {
      CHECK(entry.size_bytes == 1);
      continue;
    }
    const std::string digits{entry.name.substr(entry.name.find_first_of("0123456789"))};
    CHECK(std::stoul(digits) == 8 * entry.size_bytes);
    CHECK(entry.is_float == (entry.name.front() == 'F' || entry.name.front() == 'B'));
  }
}

TEST_CASE("names that are no dtype do not parse") {
  for (const char* name : {"", "F", "f32", "F32 ", "F128", "BOOLEAN", "I4"}) CHECK_FALSE(sinq::parse_dtype(name));
}

TEST_CASE("each weight element names its dtype") {
  STATIC_REQUIRE(sinq::dtype_of<double> == dtype::f64);
  STATIC_REQUIRE(sinq::dtype_of<float> == dtype::f32);
  STATIC_REQUIRE(sinq::dtype_of<sinq::float16> == dtype::f16);
  STATIC_REQUIRE(sinq::dtype_of<sinq::bfloat16> == dtype::bf16);
  STATIC_REQUIRE(sinq::dtype_of<sinq::float8_e4m3> == dtype::f8_e4m3);
  STATIC_REQUIRE(sinq::dtype_of<sinq::float8_e5m2> == dtype::f8_e5m2);
  STATIC_REQUIRE_FALSE(sinq::weight_element<int>);
  STATIC_REQUIRE_FALSE(sinq::weight_element<const float>);
}

namespace {

/// The value that an 8-bit float's fields give by the definition, in double.
double by_definition(int bits, int mantissa_bits, int bias) {
  const int exponent_bits = 7 - mantissa_bits;
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const double fraction = static_cast<double>(bits & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits);
  const double magnitude = exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1.0 + fraction, exponent - bias);
  return (bits & 0x80) != 0 ? -magnitude : magnitude;
}

} // namespace

TEST_CASE("all 256 values of FP8 E4M3") {
  for (int bits = 0; bits < 256; ++bits) {
    CAPTURE(bits);
    const float value = to_float(sinq::float8_e4m3{static_cast<std::uint8_t>(bits)});
    if ((bits & 0x7f) == 0x7f) {
      CHECK(std::isnan(value));
      continue;
    }
    CHECK(static_cast<double>(value) == by_definition(bits, 3, 7));
    CHECK(std::signbit(value) == ((bits & 0x80) != 0));
  }
  CHECK(to_float(sinq::float8_e4m3{0x7e}) == 448.0f);
}

TEST_CASE("all 256 values of FP8 E5M2") {
  for (int bits = 0; bits < 256; ++bits) {
    CAPTURE(bits);
    const float value = to_float(sinq::float8_e5m2{static_cast<std::uint8_t>(bits)});
    const int magnitude = bits & 0x7f;
    if (magnitude > 0x7c) {
      CHECK(std::isnan(value));
      continue;
    }
    CHECK(std::signbit(value) == ((bits & 0x80) != 0));
    if (magnitude == 0x7c)
      CHECK(std::isinf(value));
    else
      CHECK(static_cast<double>(value) == by_definition(bits, 2, 15));
  }
  CHECK(to_float(sinq::float8_e5m2{0x7b}) == 57344.0f);
}

TEST_CASE("finite is everything but NaN and infinity") {
  using limits = std::numeric_limits<float>;
  for (const float value : {0.0f, -0.0f, 1.0f, limits::max(), limits::lowest(), limits::min(), limits::denorm_min()})
    CHECK(sinq::is_finite(value));
  for (const float value : {limits::infinity(), -limits::infinity(), limits::quiet_NaN(), -limits::quiet_NaN()})
    CHECK_FALSE(sinq::is_finite(value));
}

TEST_CASE("a double beyond float's range becomes infinity, which is not finite") {
  CHECK_FALSE(sinq::is_finite(sinq::to_float(1e300)));
  CHECK(sinq::to_float(0.1) == 0.1f);
}
