#include "support/catch.hpp"
#include "support/methods.hpp"
#include "support/random_matrices.hpp"

#include <sinq/pack/pack.hpp>
#include <sinq/quant/presets.hpp>
#include <sinq/quant/quantize.hpp>

#include <cmath>

using namespace sinq_test;

namespace {

/// sum_ij e_j (W - W')_ij^2 of what pack stores, in f64; e is 1 where none are given.
double stored_error(const matrix& w, const sinq::quantized_matrix& q, const std::vector<float>& energies = {}) {
  const auto p = sinq::pack(q);
  if (!p) FAIL(p.error().message);
  const std::vector<float> back = sinq::dequantize(*p);
  double sum = 0;
  for (std::size_t n = 0; n < back.size(); ++n) {
    REQUIRE(sinq::is_finite(back[n]));
    const double e = energies.empty() ? 1.0 : double{energies[n % w.cols]};
    sum += e * std::pow(double{w.values[n]} - double{back[n]}, 2);
  }
  return sum;
}

std::vector<float> random_energies(std::size_t cols, std::uint64_t seed) {
  random_source random{seed};
  std::vector<float> e(cols);
  for (float& value : e) value = static_cast<float>(std::exp(1.5 * random.normal()));
  return e;
}

sinq::input_moments energies_only(std::vector<float> e) {
  sinq::input_moments m;
  m.second_moment = std::move(e);
  return m;
}

constexpr sinq::refine_mode none = sinq::refine_mode::none;

} // namespace

TEST_CASE("the search comes near a fine brute-force search, with weights that differ much") {
  const matrix w = student_t(16, 32, 61);
  const std::vector<float> e = random_energies(32, 62);
  const sinq::input_moments inputs = energies_only(e);
  for (const int bits : {2, 3, 4}) {
    const double found = stored_error(w,
                                      quantized(w.view(), {.method = sinq::method::rtn,
                                                           .bits = bits,
                                                           .group_size = 32,
                                                           .aux = sinq::aux_dtype::f32,
                                                           .inputs = &inputs,
                                                           .refine = sinq::refine_mode::inputs}),
                                      e);
    double best_sum = 0;
    for (std::size_t i = 0; i < 16; ++i) {
      const auto [low, high] = std::minmax_element(w.values.begin() + static_cast<long>(i * 32),
                                                   w.values.begin() + static_cast<long>(i * 32 + 32));
      double best = 1e300;
      for (int a = 0; a <= 60; ++a)
        for (int b = 0; b <= 60; ++b) {
          const double from = double{*low} * (1 - a / 100.0), to = double{*high} * (1 - b / 100.0);
          const double s = (to - from) / sinq::max_code(bits);
          double sum = 0;
          for (std::size_t j = 0; j < 32; ++j) {
            const double x = w(i, j);
            const double q = std::clamp(std::nearbyint((x - from) / s), 0.0, double(sinq::max_code(bits)));
            sum += double{e[j]} * std::pow(x - from - s * q, 2);
          }
          best = std::min(best, sum);
        }
      best_sum += best;
    }
    INFO(bits << " bits: " << found << " of " << best_sum);
    CHECK(found < 1.15 * best_sum); // of squared errors; measured: 1.14 at 2 bits, 1.07 at 3, 1.03 at 4
  }
}

TEST_CASE("refinement lowers the error that it is told to, for every method, grid and kind of matrix") {
  for (const sinq::method method : {sinq::method::rtn, sinq::method::sinq, sinq::method::sinq_nf4, sinq::method::hqq})
    for (const auto& [rows, cols] : {std::pair<std::size_t, std::size_t>{33, 128}, {17, 100}, {3, 5}})
      for (const named_matrix& kind : every_kind(rows, cols, 63)) {
        const std::vector<float> e = random_energies(cols, 64);
        const sinq::input_moments inputs = energies_only(e);
        sinq::quantize_options options{
            .method = method, .aux = sinq::aux_dtype::f32, .inputs = &inputs, .refine = none};
        const double before = stored_error(kind.m, quantized(kind.m.view(), options), e);
        options.refine = sinq::refine_mode::inputs;
        const double after = stored_error(kind.m, quantized(kind.m.view(), options), e);
        INFO(sinq::to_string(method) << ", " << kind.name << ", " << rows << " x " << cols << ": " << before << " to "
                                     << after);
        double square = 0;
        for (const float v : kind.m.values) square += double{v} * double{v};
        CHECK(after <= before * 1.001 + 1e-11 * square); // the fit is in f32: a few millionths of the largest weight
      }
}

TEST_CASE("quantized auxiliaries cost little error, and every kind of matrix survives them") {
  for (const bool symmetric : {false, true})
    for (const sinq::preset& preset : sinq::preset_table)
      for (const sinq::method method : {sinq::method::rtn, sinq::method::sinq})
        for (const auto& [rows, cols] : ragged_shapes)
          for (const named_matrix& kind : every_kind(rows, cols, 65)) {
            sinq::quantize_options options = preset({.method = method, .symmetric = symmetric});
            const sinq::quantized_matrix q = quantized(kind.m.view(), options);
            CHECK(q.format.scale_bits == preset.scale_bits);
            CHECK(q.format.zero_bits == (symmetric ? 0 : preset.zero_bits));
            const double error = stored_error(kind.m, q);
            double square = 0;
            for (const float v : kind.m.values) square += double{v} * double{v};
            INFO(preset.name << ", " << sinq::to_string(method) << ", " << kind.name << ", " << rows << " x " << cols);
            const double allowed = symmetric ? 0.7 : 0.1; // symmetric: no level is 0, which costs beside an outlier
            CHECK(error <= allowed * square + 1e-70);
          }
}

TEST_CASE("6-bit scales and zero points at 4.25 bits cost less than 1 % more error than f16") {
  for (const std::uint64_t seed : {66u, 67u, 68u}) {
    const matrix w = student_t(256, 1024, seed);
    const sinq::quantize_options plain{.refine = sinq::refine_mode::weights};
    const sinq::quantize_options narrow = sinq::parse_preset("4.25").value()(plain);
    const double f16 = std::sqrt(stored_error(w, quantized(w.view(), plain)));
    const double six = std::sqrt(stored_error(w, quantized(w.view(), narrow)));
    INFO(six / f16);
    CHECK(six < 1.01 * f16);
  }
}

TEST_CASE("one constant row leaves the others as they are") {
  matrix w = gaussian(48, 256, 69);
  const sinq::quantize_options options = sinq::parse_preset("4.5").value()({.method = sinq::method::rtn});
  const sinq::quantized_matrix before = quantized(w.view(), options);
  for (std::size_t j = 0; j < w.cols; ++j) w(20, j) = 1e3f;
  const sinq::quantized_matrix after = quantized(w.view(), options);
  for (std::size_t i = 0; i < w.rows; ++i)
    if (i != 20)
      for (std::size_t j = 0; j < w.cols; ++j) REQUIRE(before.code_matrix()(i, j) == after.code_matrix()(i, j));
  const std::vector<float> back = sinq::dequantize(*sinq::pack(after));
  for (std::size_t j = 0; j < w.cols; ++j) REQUIRE(back[20 * 256 + j] == Approx(1e3).epsilon(0.02));
}

TEST_CASE("what refinement makes does not depend on threads") {
  const matrix w = with_outliers(70, 333, 70);
  sinq::serial_executor serial;
  sinq::quantize_options options = sinq::parse_preset("3.5").value()({});
  options.run.threads = &serial;
  const sinq::quantized_matrix reference = quantized(w.view(), options);
  for (const std::size_t threads : {2u, 3u, 7u}) {
    sinq::thread_pool pool{threads};
    options.run.threads = &pool;
    const sinq::quantized_matrix q = quantized(w.view(), options);
    CHECK(std::equal(q.codes.begin(), q.codes.end(), reference.codes.begin()));
    CHECK(q.scale == reference.scale);
    CHECK(q.zero == reference.zero);
    CHECK(q.col_scale == reference.col_scale);
  }
}

TEST_CASE("a power of two in the weights is a power of two in the result") {
  const matrix w = with_outliers(40, 128, 71);
  matrix scaled = w;
  for (float& v : scaled.values) v = std::ldexp(v, -12);
  sinq::quantize_options options{
      .method = sinq::method::rtn, .aux = sinq::aux_dtype::f32, .refine = sinq::refine_mode::weights};
  const sinq::quantized_matrix a = quantized(w.view(), options);
  const sinq::quantized_matrix b = quantized(scaled.view(), options);
  CHECK(std::equal(a.codes.begin(), a.codes.end(), b.codes.begin()));
  CHECK(a.zero == b.zero);
  for (std::size_t n = 0; n < a.scale.size(); ++n) REQUIRE(std::ldexp(a.scale[n], -12) == b.scale[n]);
}

TEST_CASE("options of refinement that cannot be are refused") {
  const matrix w = gaussian(4, 64, 72);
  const auto refused = [&](sinq::quantize_options options, std::string_view says) {
    const auto q = sinq::quantize(w.view(), options);
    REQUIRE_FALSE(q);
    CHECK(q.error().code == sinq::errc::invalid_argument);
    INFO(q.error().message);
    CHECK(q.error().message.find(says) != std::string::npos);
  };
  refused({.scale_bits = 7}, "7 bits");
  refused({.zero_bits = 3}, "3 bits");
  refused({.refine = sinq::refine_mode::inputs}, "second moments");
  sinq::quantize_options options;
  options.refinement.fit.candidates = 0;
  refused(options, "0 candidates");
  options.refinement.fit = {.candidates = 40, .narrowing = 0.1f};
  refused(options, "40 candidates");
  const sinq::input_moments wrong = energies_only(std::vector<float>(63, 1.0f));
  refused({.inputs = &wrong}, "63 columns");
}
