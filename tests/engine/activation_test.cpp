#include "support/catch.hpp"
#include "support/each_isa.hpp"

#include <engine/activation.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

using namespace sinq_test;

namespace {

std::vector<double> softmax_in_double(const std::vector<float>& x) {
  const double most = *std::max_element(x.begin(), x.end());
  double sum = 0;
  std::vector<double> y;
  for (const float value : x) sum += y.emplace_back(std::exp(double{value} - most));
  for (double& value : y) value /= sum;
  return y;
}

std::vector<double> gated_in_double(const std::vector<float>& gate, const std::vector<float>& up) {
  std::vector<double> y;
  for (std::size_t n = 0; n < gate.size(); ++n)
    y.push_back(double{gate[n]} / (1 + std::exp(-double{gate[n]})) * double{up[n]});
  return y;
}

/// The series of e^r is off by 1e-7, a handful of operations round by 6e-8 each, an exponent by 2^-24 of its size, and
/// below e^-87 nothing is promised.
bool is_close(const std::vector<float>& found, const std::vector<double>& expected, double exponent = 0) {
  return std::equal(found.begin(), found.end(), expected.begin(), expected.end(), [&](float f, double e) {
    return std::fabs(double{f} - e) <= (1e-6 + exponent * 0x1p-24) * std::fabs(e) + 1e-36;
  });
}

std::vector<float> spread_out(std::size_t n, float step) {
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i) x[i] = (static_cast<float>(i * 7919 % 257) - 128) * step;
  return x;
}

} // namespace

TEST_CASE("softmax and SiLU are those of double, of any length, on each instruction set") {
  for (const sinq::isa isa : isas_here()) {
    const on_isa forced{isa};
    for (const std::size_t n : {1u, 2u, 15u, 16u, 17u, 100u, 513u})
      for (const float step : {0.0f, 1e-3f, 0.1f, 0.6f}) {
        CAPTURE(to_string(isa), n, step);
        const std::vector<float> x = spread_out(n, step), up = spread_out(n, 0.3f);
        std::vector<float> y = x;
        engine::softmax(y);
        CHECK(is_close(y, softmax_in_double(x), 256 * double{step}));
        y = x;
        engine::gate_with_silu(y, up);
        CHECK(is_close(y, gated_in_double(x, up)));
        y.back() = y.back() * 1.00001f + 1e-3f;
        CHECK_FALSE(is_close(y, gated_in_double(x, up)));
      }
  }
}

TEST_CASE("softmax and SiLU of extreme numbers are finite, and NaN stays NaN") {
  constexpr float huge = std::numeric_limits<float>::max(), infinite = std::numeric_limits<float>::infinity();
  for (const sinq::isa isa : isas_here()) {
    const on_isa forced{isa};
    CAPTURE(to_string(isa));
    std::vector<float> x{-huge, 3, -infinite, 3, -200};
    engine::softmax(x);
    CHECK(is_close(x, {0, 0.5, 0, 0.5, 0}));
    std::vector<float> gate{-huge, huge, -100, 100, 0};
    engine::gate_with_silu(gate, std::vector<float>(5, 1.0f));
    CHECK(std::fabs(gate[0]) < 3e38f);
    CHECK(gate[1] == huge);
    CHECK((std::fabs(gate[2]) < 1e-35f && gate[3] == 100 && gate[4] == 0));
    std::vector<float> none(20, 1.0f);
    none[18] = std::numeric_limits<float>::quiet_NaN();
    engine::gate_with_silu(none, std::vector<float>(20, 1.0f));
    CHECK((std::isnan(none[18]) && !std::isnan(none[17])));
    none[18] = std::numeric_limits<float>::quiet_NaN();
    engine::softmax(none);
    CHECK(std::isnan(none[0]));
  }
}
