/// Multiplies activations by a quantized weight, in floats and in bytes, and shows how far bytes are from floats.

#include <sinq/sinq.hpp>

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

int main() {
  const std::size_t tokens = 4;  // M
  const std::size_t rows = 512;  // N, outputs
  const std::size_t cols = 1024; // K, inputs
  std::vector<float> weights(rows * cols), x(tokens * cols);
  std::mt19937 random{1};
  std::normal_distribution<float> normal;
  for (float& w : weights) w = 0.02f * normal(random);
  for (float& value : x) value = normal(random);

  const auto q = sinq::quantize(sinq::matrix_view<const float>{weights.data(), rows, cols}, {.bits = 4});
  if (!q) return std::fprintf(stderr, "%s\n", q.error().message.c_str()), 1;
  const auto packed = sinq::pack(*q);
  if (!packed) return std::fprintf(stderr, "%s\n", packed.error().message.c_str()), 1;
  const auto w = sinq::to_panels(*packed); // what an engine keeps in memory
  if (!w) return std::fprintf(stderr, "%s\n", w.error().message.c_str()), 1;

  std::vector<float> exact(tokens * rows), bytes(tokens * rows);
  for (const auto& [precision, y] : {std::pair{sinq::precision::exact, &exact}, {sinq::precision::int8, &bytes}}) {
    const auto done = sinq::matmul(*w, sinq::matrix_view<const float>{x.data(), tokens, cols},
                                   {y->data(), tokens, rows}, {.precision = precision});
    if (!done) return std::fprintf(stderr, "%s\n", done.error().message.c_str()), 1;
  }
  double difference = 0, size = 0;
  for (std::size_t n = 0; n < exact.size(); ++n) {
    difference += std::pow(double{bytes[n]} - double{exact[n]}, 2);
    size += std::pow(double{exact[n]}, 2);
  }
  std::printf("%zu tokens, %zu x %zu weights in %zu bytes: int8 differs from exact by %.2f %%\n", tokens, rows, cols,
              w->size_bytes(), 100 * std::sqrt(difference / size));
  return 0;
}
