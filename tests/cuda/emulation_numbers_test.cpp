/// The emulation of CUDA: its numbers, conversions and tensor cores, against what Eigen and plain loops compute.

#include "cuda/emulation/emulation.hpp"

#include "support/catch.hpp"
#include "support/random_matrices.hpp"

#include <Eigen/Core>

using namespace sinq_emulation;

namespace {

/// Floats of all kinds: random bits, and those around the midpoints of 16-bit floats.
std::vector<float> many_floats() {
  std::vector<float> floats{0.0f,    -0.0f,    1e-45f,   65504.0f, 65519.996f,  65520.0f,
                            3.4e38f, 3.39e38f, 5.96e-8f, 2.98e-8f, 2.980233e-8f};
  std::mt19937 bits{1};
  for (int k = 0; k < 20000; ++k) {
    const auto random = static_cast<std::uint32_t>(bits());
    floats.push_back(std::bit_cast<float>(random));
    floats.push_back(std::bit_cast<float>((random & 0xffff0000U) | 0x8000U));
    // Exponents that binary16 has; midpoints of its 10 bits and their neighbours.
    const std::uint32_t in_range = (random & 0x807fffffU) | (100U + random % 46U) << 23;
    for (const std::uint32_t tail : {0x0fffU, 0x1000U, 0x1001U})
      floats.push_back(std::bit_cast<float>((in_range & ~0x1fffU) | tail));
  }
  return floats;
}

/// A matrix product's operands as fragments, from the tables of the PTX manual, written down element by element.
struct mma_operands {
  std::array<std::array<float, 16>, 16> a{};
  std::array<std::array<float, 8>, 16> b{};
  std::array<std::array<float, 8>, 16> d{};
};

template <class Convert>
std::uint32_t pair_of(float low, float high, Convert convert) {
  return std::uint32_t{convert(low).bits} | std::uint32_t{convert(high).bits} << 16;
}

template <class Convert, class Mma>
std::array<std::array<float, 8>, 16> multiply(const mma_operands& in, Convert convert, Mma mma) {
  std::array<std::array<float, 8>, 16> out{};
  launch({.grid = {1}, .block = {32}}, [&] {
    const unsigned g = threadIdx.x / 4;
    const unsigned p = threadIdx.x % 4 * 2;
    const std::uint32_t a[4] = {
        pair_of(in.a[g][p], in.a[g][p + 1], convert), pair_of(in.a[g + 8][p], in.a[g + 8][p + 1], convert),
        pair_of(in.a[g][p + 8], in.a[g][p + 9], convert), pair_of(in.a[g + 8][p + 8], in.a[g + 8][p + 9], convert)};
    const std::uint32_t b[2] = {pair_of(in.b[p][g], in.b[p + 1][g], convert),
                                pair_of(in.b[p + 8][g], in.b[p + 9][g], convert)};
    float d[4] = {in.d[g][p], in.d[g][p + 1], in.d[g + 8][p], in.d[g + 8][p + 1]};
    mma(d, a, b);
    out[g][p] = d[0];
    out[g][p + 1] = d[1];
    out[g + 8][p] = d[2];
    out[g + 8][p + 1] = d[3];
  });
  return out;
}

/// Small integers, so that every sum is exact in any order.
mma_operands integer_operands() {
  mma_operands in;
  for (unsigned m = 0; m < 16; ++m)
    for (unsigned k = 0; k < 16; ++k) in.a[m][k] = static_cast<float>((m * 7 + k * 3) % 11) - 5.0f;
  for (unsigned k = 0; k < 16; ++k)
    for (unsigned n = 0; n < 8; ++n) in.b[k][n] = static_cast<float>((k * 5 + n * 9) % 13) - 6.0f;
  for (unsigned m = 0; m < 16; ++m)
    for (unsigned n = 0; n < 8; ++n) in.d[m][n] = static_cast<float>(m * 8 + n);
  return in;
}

} // namespace

TEST_CASE("conversions between float and 16-bit floats are Eigen's") {
  for (std::uint32_t bits = 0; bits < 0x10000U; ++bits) {
    const auto word = static_cast<std::uint16_t>(bits);
    const float half = static_cast<float>(Eigen::numext::bit_cast<Eigen::half>(word));
    const float bfloat = static_cast<float>(Eigen::numext::bit_cast<Eigen::bfloat16>(word));
    const float own_half = __half2float(__ushort_as_half(word));
    const float own_bfloat = __bfloat162float(__ushort_as_bfloat16(word));
    if (std::isnan(half) ? !std::isnan(own_half) : __float_as_uint(half) != __float_as_uint(own_half)) FAIL(bits);
    if (std::isnan(bfloat) ? !std::isnan(own_bfloat) : __float_as_uint(bfloat) != __float_as_uint(own_bfloat))
      FAIL(bits);
  }
  for (const float value : many_floats()) {
    CAPTURE(value, __float_as_uint(value));
    const std::uint16_t half = __half_as_ushort(__float2half_rn(value));
    const std::uint16_t bfloat = __bfloat16_as_ushort(__float2bfloat16_rn(value));
    if (std::isnan(value)) {
      if (half != 0x7fff || bfloat != 0x7fff) FAIL("NaN");
      continue;
    }
    if (half != Eigen::numext::bit_cast<std::uint16_t>(Eigen::half(value))) FAIL("half");
    if (bfloat != Eigen::numext::bit_cast<std::uint16_t>(Eigen::bfloat16(value))) FAIL("bfloat16");
  }
}

TEST_CASE("arithmetic in 16 bits rounds the exact result once") {
  sinq_test::random_source random{3};
  for (int k = 0; k < 50000; ++k) {
    const __half a = __float2half(static_cast<float>(random.normal()));
    const __half b = __float2half(static_cast<float>(random.normal()));
    const float fa = __half2float(a);
    const float fb = __half2float(b);
    // Sums and products of two binary16 numbers of this size are exact in double.
    if (__hadd(a, b).bits != round_to<binary16>(double{fa} + double{fb}).bits) FAIL("sum");
    if (__hsub(a, b).bits != round_to<binary16>(double{fa} - double{fb}).bits) FAIL("difference");
    if (__hmul(a, b).bits != round_to<binary16>(double{fa} * double{fb}).bits) FAIL("product");
  }
  // 1 + 2^-11 is a midpoint; what is far below the last bit of a double decides.
  const __half one = __float2half(1.0f);
  const __half midpoint_part = __float2half(0x1p-11f);
  const __half tiny = __float2half(0x1p-24f);
  CHECK(__hfma(one, one, midpoint_part).bits == one.bits);
  CHECK(__hfma(tiny, tiny, __float2half(1.0f)).bits == one.bits);
  const __half above = __float2half(1.0f + 0x1p-10f);
  CHECK(__hfma(__float2half(0x1p-11f), above, one).bits == above.bits);
  // 2048 + 1 is a midpoint; 2^-48 more is lost in a double that is rounded to nearest.
  const __half big = __float2half(2048.0f);
  CHECK(round_to<binary16>(add_to_odd(2049.0, 0x1p-48)).bits == __float2half(2050.0f).bits);
  CHECK(round_to<binary16>(add_to_odd(2049.0, -0x1p-48)).bits == big.bits);
}

TEST_CASE("integers and bits") {
  CHECK(__float2int_rn(2.5f) == 2);
  CHECK(__float2int_rn(3.5f) == 4);
  CHECK(__float2int_rn(-1e20f) == std::numeric_limits<int>::min());
  CHECK(__float2int_rn(1e20f) == std::numeric_limits<int>::max());
  CHECK(__float2int_rn(std::nanf("")) == 0);
  CHECK(__float2uint_rn(-3.0f) == 0);
  CHECK(__byte_perm(0x33221100U, 0x77665544U, 0x7214) == 0x77221144U);
  CHECK(__byte_perm(0x33228100U, 0, 0x9) == 0xffU);
  CHECK(__brev(0x80000001U << 1) == 0x40000000U);
  CHECK(__funnelshift_r(0x12345678U, 0x9abcdef0U, 8) == 0xf0123456U);
  CHECK(__funnelshift_l(0x12345678U, 0x9abcdef0U, 8) == 0xbcdef012U);
  CHECK(lop3<(0xf0 & 0xcc) | 0xaa>(0x0000ffffU, 0x00ff00ffU, 0x0f0f0000U) == 0x0f0f00ffU);
  CHECK(lop3<0x96>(0x0000ffffU, 0x00ff00ffU, 0x0f0f0f0fU) == (0x0000ffffU ^ 0x00ff00ffU ^ 0x0f0f0f0fU));
}

TEST_CASE("mma multiplies matrices, in both formats and under every schedule") {
  const mma_operands in = integer_operands();
  for (const schedule& order : schedules()) {
    const scoped_schedule scope{order};
    const auto half = multiply(in, &__float2half, [](auto& d, auto& a, auto& b) { mma_m16n8k16_f16(d, a, b); });
    const auto bfloat = multiply(in, &__float2bfloat16, [](auto& d, auto& a, auto& b) { mma_m16n8k16_bf16(d, a, b); });
    for (unsigned m = 0; m < 16; ++m)
      for (unsigned n = 0; n < 8; ++n) {
        float expected = in.d[m][n];
        for (unsigned k = 0; k < 16; ++k) expected += in.a[m][k] * in.b[k][n];
        CHECK(half[m][n] == expected);
        CHECK(bfloat[m][n] == expected);
      }
  }
}

TEST_CASE("sums that are cut off differ from exact ones, by what 24 bits below the largest product allow") {
  sinq_test::random_source random{5};
  mma_operands in;
  for (auto& row : in.a)
    for (float& value : row) value = static_cast<float>(random.normal());
  for (auto& row : in.b)
    for (float& value : row) value = static_cast<float>(random.normal());
  const auto run = [&] {
    return multiply(in, &__float2half, [](auto& d, auto& a, auto& b) { mma_m16n8k16_f16(d, a, b); });
  };
  const auto exact = run();
  const scoped_summation scope{summation::truncating};
  const auto cut = run();
  CHECK(cut != exact);
  // Products are below 32, their sums below 128: 18 cuts of at most 2^-19 and two of at most 2^-17 in a result.
  for (unsigned m = 0; m < 16; ++m)
    for (unsigned n = 0; n < 8; ++n) CHECK(std::abs(cut[m][n] - exact[m][n]) <= 18 * 0x1p-19f + 3 * 0x1p-17f);
}

TEST_CASE("ldmatrix hands out rows, or columns") {
  for (const schedule& order : schedules()) {
    const scoped_schedule scope{order};
    launch({.grid = {1}, .block = {32}}, [] {
      SINQ_SHARED(std::uint16_t, elements, 4 * 64);
      for (unsigned k = 0; k < 8; ++k) elements[threadIdx.x * 8 + k] = static_cast<std::uint16_t>(threadIdx.x * 8 + k);
      __syncwarp();
      const unsigned g = threadIdx.x / 4;
      const unsigned p = threadIdx.x % 4 * 2;
      std::uint32_t rows[4];
      std::uint32_t columns[2];
      ldmatrix<4>(rows, elements + threadIdx.x * 8);
      ldmatrix<2, true>(columns, elements + threadIdx.x * 8);
      bool right = true;
      for (unsigned i = 0; i < 4; ++i) right &= rows[i] == ((i * 64 + g * 8 + p) | (i * 64 + g * 8 + p + 1) << 16);
      for (unsigned i = 0; i < 2; ++i) right &= columns[i] == ((i * 64 + p * 8 + g) | (i * 64 + (p + 1) * 8 + g) << 16);
      if (!right) detail::fail(place::current(), "wrong");
    });
  }
}
