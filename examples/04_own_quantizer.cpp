/// A quantizer of one's own: any type that satisfies the concept `quantizer` works alone, tile by tile in parallel, and
/// inside SINQ. This one is symmetric with steps that are powers of two, so that scaling is a shift.

#include <sinq/sinq.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

namespace {

class power_of_two_quantizer {
public:
  static constexpr bool row_independent = true;

  explicit power_of_two_quantizer(std::size_t group_size) : group_size_{group_size} {}

  [[nodiscard]] static constexpr int bits() { return 4; }
  [[nodiscard]] std::size_t group_size() const { return group_size_; }

  [[nodiscard]] sinq::result<sinq::quantized_matrix> operator()(sinq::matrix_view<const float> w) const {
    if (w.empty()) return sinq::make_error(sinq::errc::empty_matrix, "the matrix is ", w.rows(), " x ", w.cols());
    auto q = sinq::quantized_matrix::allocate(format(w.rows(), w.cols(), false), "power_of_two");
    const std::size_t groups = q.format.groups();
    for (std::size_t i = 0; i < w.rows(); ++i)
      for (std::size_t g = 0; g < groups; ++g) {
        const std::size_t begin = g * group_size_;
        const std::size_t count = q.format.group_cols(g);
        q.scale[i * groups + g] =
            group(w.row(i).subspan(begin, count), q.codes.span().subspan(i * w.cols() + begin, count));
      }
    return q;
  }

  /// What its results look like, and those of sinkhorn_quantizer around it, which adds t.
  [[nodiscard]] sinq::matrix_format format(std::size_t rows, std::size_t cols, bool has_col_scale) const {
    return {.rows = rows,
            .cols = cols,
            .bits = bits(),
            .group_size = group_size_,
            .has_zero = false, // every zero point is symmetric_zero(), 7.5
            .has_col_scale = has_col_scale};
  }

private:
  /// W = scale * (code - 7.5); returns the scale.
  [[nodiscard]] static float group(std::span<const float> w, std::span<std::uint8_t> codes) {
    float most = 0;
    for (const float value : w) most = std::max(most, std::fabs(value));
    if (most == 0) { // a scale of 0 makes any code a weight of 0
      std::fill(codes.begin(), codes.end(), std::uint8_t{7});
      return 0;
    }
    const float scale = std::exp2(std::round(std::log2(most / 7.5f)));
    for (std::size_t k = 0; k < w.size(); ++k)
      codes[k] = static_cast<std::uint8_t>(std::clamp(std::nearbyint(w[k] / scale + 7.5f), 0.0f, 15.0f));
    return scale;
  }

  std::size_t group_size_;
};

static_assert(sinq::quantizer<power_of_two_quantizer>);

int report(const char* how, sinq::matrix_view<const float> w, const sinq::result<sinq::quantized_matrix>& q) {
  if (!q) return std::fprintf(stderr, "%s: %s\n", how, q.error().message.c_str()), 1;
  const auto packed = sinq::pack(*q);
  if (!packed) return std::fprintf(stderr, "%s: %s\n", how, packed.error().message.c_str()), 1;
  const auto error = sinq::measure_error(w, *packed, sinq::column_normalizing_weights(w));
  if (!error) return std::fprintf(stderr, "%s: %s\n", how, error.error().message.c_str()), 1;
  std::printf("%-28s  %.3f bits per weight, column-normalized error %.5f\n", how, sinq::bits_per_weight(*packed),
              error->weighted_relative_error);
  return 0;
}

} // namespace

int main() {
  const std::size_t rows = 256;
  const std::size_t cols = 512;
  std::vector<float> weights(rows * cols);
  std::mt19937 random{3};
  std::normal_distribution<float> normal{0.0f, 0.02f};
  for (float& w : weights) w = normal(random);
  for (std::size_t i = 0; i < rows; ++i) weights[i * cols + 7] *= 20.0f; // one input feature that stands out
  const sinq::matrix_view<const float> w{weights.data(), rows, cols};

  const power_of_two_quantizer own{64};
  const sinq::sinkhorn_quantizer inside_sinq{sinq::sinkhorn_options{}, own};
  const auto parallel = sinq::quantize_tiles(w, own.format(rows, cols, false), "power_of_two", own);
  const auto balanced = sinq::quantize_tiles(w, own.format(rows, cols, true), "sinq_power_of_two", inside_sinq);
  return report("own", w, own(w)) + report("own, tiles in parallel", w, parallel) +
         report("own inside SINQ", w, balanced);
}
