#include "support/catch.hpp"
#include "support/each_isa.hpp"

#include <sinq/core/convert.hpp>
#include <sinq/core/wide.hpp>

#include <cstring>
#include <limits>
#include <numeric>

using namespace sinq_test;

namespace {

/// Tells which width it was compiled for.
struct width_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(std::size_t& width) {
    width = W;
  }
};

SINQ_SEPARATE_ROUNDING_BEGIN

/// a b + c, which one rounding or two tell apart.
struct product_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(const float* a, const float* b, const float* c, float* to, std::size_t n) {
    sinq::detail::vec<float, W> x, y, z;
    for (std::size_t j = 0; j + W <= n; j += W) {
      sinq::detail::load(a + j, x);
      sinq::detail::load(b + j, y);
      sinq::detail::load(c + j, z);
      sinq::detail::store(x * y + z, to + j);
    }
  }
};

SINQ_SEPARATE_ROUNDING_END

/// All bit patterns of a 16-bit type, a few more, so that the last are no whole vector.
std::vector<std::uint16_t> all_patterns() {
  std::vector<std::uint16_t> bits(65536 + 7);
  std::iota(bits.begin(), bits.end(), std::uint16_t{0});
  return bits;
}

template <class T>
void check_conversion(sinq::dtype type) {
  const std::vector<std::uint16_t> bits = all_patterns();
  for (const sinq::isa id : isas_here()) {
    const on_isa on{id};
    INFO(to_string(id) << " " << to_string(type));
    std::vector<float> values(bits.size());
    sinq::load_floats(reinterpret_cast<const sinq::byte*>(bits.data()), type, values);
    std::size_t wrong = 0;
    for (std::size_t n = 0; n < bits.size(); ++n) {
      const float expected = static_cast<float>(Eigen::numext::bit_cast<T>(bits[n]));
      const bool both_nan = expected != expected && values[n] != values[n];
      if (!both_nan && std::memcmp(&expected, &values[n], sizeof(float)) != 0) ++wrong;
    }
    CHECK(wrong == 0);
  }
}

} // namespace

TEST_CASE("instruction sets are found by name, and others refused with those that are here") {
  std::size_t n = 0;
  for (const sinq::isa_info& entry : sinq::isa_table) {
    CHECK(static_cast<std::size_t>(entry.id) == n++);
    const auto found = sinq::find_isa(entry.name);
    CHECK(found.has_value() == is_here(entry.id));
    if (found) CHECK(*found == entry.id);
    if (!found) CHECK(found.error().code == sinq::errc::unsupported);
  }
  const auto unknown = sinq::find_isa("mmx");
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error().code == sinq::errc::invalid_argument);
  CHECK_THAT(unknown.error().message, Catch::Contains("mmx") && Catch::Contains("scalar"));
}

TEST_CASE("loops run in the width of the instruction set in use") {
  for (const sinq::isa id : isas_here()) {
    const on_isa on{id};
    CHECK(sinq::current_isa() == id);
    std::size_t width = 0;
    sinq::detail::run_wide<width_loop>(width);
    const std::size_t expected = id == sinq::isa::scalar ? 1
                                 : id == sinq::isa::neon ? 4
                                 : id == sinq::isa::avx2 ? 8
                                                         : 16;
    CHECK(sinq::vector_floats(id) == expected);
    CHECK(width == expected);
    width = 0;
    sinq::detail::run_wide_fused<width_loop>(width);
    CHECK(width == expected);
  }
}

TEST_CASE("products are rounded before they enter a sum on every instruction set") {
  // (1 + e) (1 + e) - 1 - 2 e: rounded first it is 0, fused it is e^2
  const std::vector<float> a(16, 1 + 0x1p-13f), c(16, -(1 + 0x1p-12f));
  for (const sinq::isa id : isas_here()) {
    const on_isa on{id};
    std::vector<float> to(16, 1.0f);
    sinq::detail::run_wide<product_loop>(a.data(), a.data(), c.data(), to.data(), to.size());
    CHECK(to == std::vector<float>(16, 0.0f));
  }
}

TEST_CASE("16-bit floats are converted exactly on every instruction set") {
  check_conversion<sinq::float16>(sinq::dtype::f16);
  check_conversion<sinq::bfloat16>(sinq::dtype::bf16);
}

TEST_CASE("floats become bf16 as Eigen has it on every instruction set") {
  // every bf16, and what lies around its ties
  std::vector<float> values;
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits)
    for (const std::uint32_t below : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      values.push_back(std::bit_cast<float>(bits << 16 | below));
  for (const sinq::isa id : isas_here()) {
    const on_isa on{id};
    std::vector<sinq::bfloat16> narrow(values.size());
    sinq::store_floats(values, sinq::dtype::bf16, reinterpret_cast<sinq::byte*>(narrow.data()));
    std::size_t wrong = 0;
    for (std::size_t n = 0; n < values.size(); ++n) {
      const auto expected = static_cast<sinq::bfloat16>(values[n]);
      const bool same = std::isnan(values[n]) ? std::isnan(static_cast<float>(narrow[n]))
                                              : std::memcmp(&expected, &narrow[n], 2) == 0;
      wrong += same ? 0 : 1;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("one value that is not finite is found wherever it lies") {
  for (const sinq::isa id : isas_here()) {
    const on_isa on{id};
    for (std::size_t n = 1; n <= 40; ++n) {
      std::vector<float> values(n, std::numeric_limits<float>::max());
      CHECK(sinq::all_finite(values));
      for (std::size_t at = 0; at < n; ++at)
        for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                                std::numeric_limits<float>::quiet_NaN()}) {
          values[at] = bad;
          CHECK_FALSE(sinq::all_finite(values));
          values[at] = -0x1p-149f;
        }
    }
  }
}
