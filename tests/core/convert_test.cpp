#include "support/catch.hpp"
#include "support/each_isa.hpp"

#include <sinq/core/convert.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

using sinq::dtype;

namespace {

std::vector<sinq::byte> store(const std::vector<float>& values, dtype type) {
  std::vector<sinq::byte> stored(values.size() * size_bytes(type));
  sinq::store_floats(values, type, stored.data());
  return stored;
}

std::vector<float> load(const std::vector<sinq::byte>& stored, dtype type) {
  std::vector<float> values(stored.size() / size_bytes(type));
  sinq::load_floats(stored.data(), type, values);
  return values;
}

float through(float value, dtype type) {
  return load(store({value}, type), type)[0];
}

/// The value of an 8-bit float nearest to `value` by trying every one; ties to the even code.
template <class Float8>
float nearest_by_search(float value) {
  int best = 0;
  double best_distance = std::numeric_limits<double>::infinity();
  for (int bits = 0; bits < 128; ++bits) {
    const float candidate = to_float(Float8{static_cast<std::uint8_t>(bits)});
    if (!sinq::is_finite(candidate)) continue;
    const double distance = std::fabs(static_cast<double>(candidate) - std::fabs(static_cast<double>(value)));
    if (distance < best_distance || (distance == best_distance && bits % 2 == 0)) {
      best_distance = distance;
      best = bits;
    }
  }
  return std::copysign(to_float(Float8{static_cast<std::uint8_t>(best)}), value);
}

} // namespace

TEST_CASE("values that a type holds come back exactly") {
  const std::vector<float> values{0.0f, -0.0f, 1.0f, -1.5f, 0.25f, 448.0f, -0.015625f};
  for (const dtype type : {dtype::f64, dtype::f32, dtype::f16, dtype::bf16, dtype::f8_e4m3, dtype::f8_e5m2}) {
    CAPTURE(std::string{to_string(type)});
    const std::vector<float> back = load(store(values, type), type);
    REQUIRE(back.size() == values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      CHECK(back[i] == values[i]);
      CHECK(std::signbit(back[i]) == std::signbit(values[i]));
    }
  }
}

TEST_CASE("16-bit floats round half to even and overflow to infinity") {
  CHECK(through(2049.0f, dtype::f16) == 2048.0f);
  CHECK(through(2051.0f, dtype::f16) == 2052.0f);
  CHECK(through(65519.0f, dtype::f16) == 65504.0f);
  CHECK(std::isinf(through(65520.0f, dtype::f16)));
  CHECK(through(257.0f, dtype::bf16) == 256.0f);
  CHECK(through(259.0f, dtype::bf16) == 260.0f);
  CHECK(std::isinf(through(std::numeric_limits<float>::max(), dtype::bf16)));
  CHECK(through(0x1p-24f, dtype::f16) == 0x1p-24f);
}

TEST_CASE("every 16-bit pattern survives a trip through float") {
  std::vector<std::uint16_t> patterns(0x10000);
  std::iota(patterns.begin(), patterns.end(), std::uint16_t{0});
  std::vector<sinq::byte> stored(2 * patterns.size());
  std::memcpy(stored.data(), patterns.data(), stored.size());
  for (const dtype type : {dtype::f16, dtype::bf16}) {
    const std::vector<float> values = load(stored, type);
    std::vector<std::uint16_t> back(patterns.size());
    std::memcpy(back.data(), store(values, type).data(), stored.size());
    for (std::size_t bits = 0; bits < patterns.size(); ++bits)
      if (!std::isnan(values[bits]) && back[bits] != patterns[bits]) FAIL(to_string(type) << " pattern " << bits);
  }
}

TEST_CASE("floats become halves as Eigen converts them, one by one and many at a time") {
  for (const sinq::isa id : sinq_test::isas_here()) {
    const sinq_test::on_isa on{id};
    std::vector<float> values;
    for (std::uint64_t bits = 0; bits < 0x1'0000'0000; bits += 40'503)
      values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
    for (std::uint32_t half = 0; half < 0x7bff; ++half) // ties, and their neighbours
      for (const int step : {-1, 0, 1}) {
        const float low = static_cast<float>(std::bit_cast<sinq::float16>(static_cast<std::uint16_t>(half)));
        const float high = static_cast<float>(std::bit_cast<sinq::float16>(static_cast<std::uint16_t>(half + 1)));
        const float tie = (low + high) / 2;
        values.push_back(step == 0 ? tie : std::nextafter(tie, step < 0 ? 0.0f : 1e9f));
      }
    const std::vector<sinq::byte> stored = store(values, dtype::f16);
    std::size_t wrong = 0;
    for (std::size_t k = 0; k < values.size(); ++k) {
      sinq::float16 half;
      std::memcpy(&half, stored.data() + 2 * k, 2);
      const auto expected = static_cast<sinq::float16>(values[k]);
      wrong += std::isnan(values[k]) ? !std::isnan(static_cast<float>(half)) : std::memcmp(&half, &expected, 2) != 0;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("8-bit floats take the nearest value, ties to even, and saturate") {
  for (int k = -40000; k <= 40000; ++k) {
    const float value = static_cast<float>(k) * (std::abs(k) % 7 == 0 ? 0x1p-17f : 0x1p-6f);
    if (through(value, dtype::f8_e4m3) != nearest_by_search<sinq::float8_e4m3>(value)) FAIL("E4M3 of " << value);
    if (through(value, dtype::f8_e5m2) != nearest_by_search<sinq::float8_e5m2>(value)) FAIL("E5M2 of " << value);
  }
  for (const float big : {1e6f, std::numeric_limits<float>::max(), std::numeric_limits<float>::infinity()}) {
    CHECK(through(big, dtype::f8_e4m3) == 448.0f);
    CHECK(through(-big, dtype::f8_e4m3) == -448.0f);
    CHECK(through(big, dtype::f8_e5m2) == 57344.0f);
  }
}

TEST_CASE("NaN stays NaN in every floating type") {
  for (const dtype type : {dtype::f64, dtype::f32, dtype::f16, dtype::bf16, dtype::f8_e4m3, dtype::f8_e5m2})
    CHECK(std::isnan(through(std::numeric_limits<float>::quiet_NaN(), type)));
}

TEST_CASE("elements are read and written at any address") {
  const std::vector<float> values{1.0f, -2.0f, 3.5f};
  for (const dtype type : {dtype::f64, dtype::f32, dtype::f16, dtype::bf16}) {
    std::vector<sinq::byte> memory(1 + values.size() * size_bytes(type));
    sinq::store_floats(values, type, memory.data() + 1);
    std::vector<float> back(values.size());
    sinq::load_floats(memory.data() + 1, type, back);
    CHECK(back == values);
  }
}
