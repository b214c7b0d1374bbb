/// What a project that uses sinq might hold; built by each of the projects beside it.

#include <sinq/sinq.hpp>

#include <cmath>
#include <cstdio>
#include <vector>

int main() {
  constexpr std::size_t rows = 32;
  constexpr std::size_t cols = 128;
  std::vector<float> weights(rows * cols);
  for (std::size_t k = 0; k < weights.size(); ++k) weights[k] = std::sin(static_cast<float>(k));

  const auto w = sinq::matrix_view<const float>{weights.data(), rows, cols};
  const auto q = sinq::quantize(w, {.method = sinq::method::sinq, .bits = 8, .group_size = 64});
  if (!q) return std::puts(q.error().message.c_str()), 1;
  const auto p = sinq::pack(*q);
  if (!p) return std::puts(p.error().message.c_str()), 1;
  const std::vector<float> back = sinq::dequantize(*p);

  float worst = 0.0f;
  for (std::size_t k = 0; k < back.size(); ++k) worst = std::fmax(worst, std::fabs(back[k] - weights[k]));
  std::printf("sinq %s: largest error %g at 8 bits\n", SINQ_VERSION_STRING, static_cast<double>(worst));
  return worst < 0.01f ? 0 : 1;
}
