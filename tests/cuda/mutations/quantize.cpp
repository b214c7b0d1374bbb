#include "prelude.hpp"

#include "cuda/quantized.hpp"

using namespace sinq_test;
namespace cuda = sinq::cuda;

namespace {

void check(const matrix& w, cuda::quantize_options o, sinq::sinkhorn_rule rule) {
  o.sinkhorn.rule = rule;
  CAPTURE(w.rows, w.cols, o.bits, o.group_size, o.balance, o.symmetric, int(o.grid), int(o.zero));
  const cuda::device_image expected = quantized_on_cpu(w.view(), o);
  for (const sinq_emulation::schedule& order : sinq_emulation::schedules()) {
    const sinq_emulation::scoped_schedule scope{order};
    const auto buffer = value_of(cuda::device_buffer<float>::copy_of(w.values));
    auto work = value_of(cuda::workspace::make());
    const auto q = value_of(cuda::quantize(cuda::device_view<const float>{buffer.data(), w.rows, w.cols}, o, work));
    const auto actual = value_of(q.download());
    CHECK(actual.t == expected.t);
    CHECK(actual.unit == expected.unit);
    CHECK(actual.weights == expected.weights);
  }
}
void check(const matrix& w, const cuda::quantize_options& o) {
  check(w, o, sinq::sinkhorn_rule::alternating);
  check(w, o, sinq::sinkhorn_rule::reference);
}

} // namespace

TEST_CASE("weights are quantized to the bytes of the CPU") {
  matrix uneven = gaussian(37, 70, 3);
  for (std::size_t n = 0; n < uneven.values.size(); ++n)
    uneven.values[n] *= std::exp(0.5f * static_cast<float>(n / uneven.cols)) * 1e-4f;
  check(gaussian(37, 81, 1), {.bits = 4, .group_size = 64, .sinkhorn = {.iterations = 4}});
  check(gaussian(18, 33, 2), {.bits = 3, .group_size = 32, .zero = sinq::zero_mode::fractional});
  check(uneven, {.bits = 8, .group_size = 128, .sinkhorn = {.iterations = 2}});
  check(uneven, {.balance = false, .symmetric = true}, {});
  check(uneven, {.grid = sinq::grid::nf4, .sinkhorn = {.iterations = 2}});
  matrix hot = gaussian(37, 40, 4); // a row and a column of zeros, weights far out, rows far from zero
  for (std::size_t n = 0; n < hot.values.size(); ++n) {
    float& value = hot.values[n];
    const std::size_t i = n / hot.cols, j = n % hot.cols;
    value = i == 5 || j == 7 ? 0.0f : i > 30 ? value + 30.0f : i % 9 == n % 11 ? value * 300.0f : value;
  }
  check(hot, {.bits = 8}, sinq::sinkhorn_rule::alternating);
  matrix tall = gaussian(90, 64, 16); // which a second pass evens out
  for (std::size_t n = 0; n < tall.values.size(); ++n)
    tall.values[n] *= std::exp(static_cast<float>(n * 7 % 64) / 13) * (n / 64 % 9 == n % 9 ? 300.0f : 1.0f);
  check(tall, {}, sinq::sinkhorn_rule::alternating);
}
