/// Quantizes a matrix that lies in memory, and shows how close the result is.

#include <sinq/sinq.hpp>

#include <cstdio>
#include <random>
#include <vector>

int main() {
  const std::size_t rows = 512;  // N, outputs
  const std::size_t cols = 1024; // K, inputs
  std::vector<float> weights(rows * cols);
  std::mt19937 random{1};
  std::normal_distribution<float> normal{0.0f, 0.02f};
  for (float& w : weights) w = normal(random);
  for (std::size_t i = 0; i < rows; ++i) weights[i * cols + 7] *= 20.0f; // one input feature that stands out

  const sinq::matrix_view<const float> w{weights.data(), rows, cols};
  const std::vector<double> column_weights = sinq::column_normalizing_weights(w);
  for (const sinq::method method : {sinq::method::rtn, sinq::method::sinq}) {
    const auto q = sinq::quantize(w, {.method = method, .bits = 4, .group_size = 64});
    if (!q) return std::fprintf(stderr, "%s\n", q.error().message.c_str()), 1;
    const auto packed = sinq::pack(*q);
    if (!packed) return std::fprintf(stderr, "%s\n", packed.error().message.c_str()), 1;
    const auto error = sinq::measure_error(w, *packed, column_weights);
    if (!error) return std::fprintf(stderr, "%s\n", error.error().message.c_str()), 1;
    std::printf("%-4s  %.3f bits per weight, relative error %.5f, column-normalized %.5f\n", packed->method.c_str(),
                sinq::bits_per_weight(*packed), error->relative_error, error->weighted_relative_error);
  }
  return 0;
}
