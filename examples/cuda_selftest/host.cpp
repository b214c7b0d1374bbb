#include "host.hpp"

#include <sinq/cuda/convert.hpp>
#include <sinq/sinq.hpp>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>

namespace selftest {

namespace {

template <class T>
T must(sinq::result<T> outcome) {
  if (outcome) return *std::move(outcome);
  std::fprintf(stderr, "%s\n", outcome.error().message.c_str());
  std::exit(1);
}

/// Level, scale and zero point of one column of a row of an image.
struct element {
  double level, scale, zero;
};

element element_at(const sinq::cuda::device_image& image, unsigned i, unsigned j) {
  const sinq::cuda::device_format& f = image.format;
  const unsigned unit = j / sinq::cuda::unit_cols, column = j % sinq::cuda::unit_cols;
  const std::uint8_t* const record =
      image.weights.data() + (std::size_t{i / sinq::cuda::tile_rows} * f.units() + unit) * f.record_bytes();
  const sinq::cuda::code_place place = place_of(f.form, i % sinq::cuda::tile_rows, column);
  const unsigned mask = f.form == sinq::cuda::code_form::u3 ? 3u : (1u << bits_of(f.form)) - 1;
  unsigned code = record[place.byte] >> place.shift & mask;
  if (f.form == sinq::cuda::code_form::u3) code |= (record[place.high_byte] >> place.high_shift & 1u) << 2;
  const std::uint8_t* const aux = record + aux_place(f, i % sinq::cuda::tile_rows, column / f.group_size);
  std::uint16_t stored[2];
  std::memcpy(stored, aux, sizeof stored);
  const bool table = f.form == sinq::cuda::code_form::table4;
  return {table ? double{image.levels[code]} : double(code), from_bits(stored[0], false), from_bits(stored[1], false)};
}

} // namespace

weight random_weight(const weight_options& o, std::uint64_t seed, bool with_dense) {
  std::mt19937_64 random{seed};
  std::uniform_real_distribution<float> between{0, 1};
  auto q = sinq::quantized_matrix::allocate({.rows = o.rows,
                                             .cols = o.cols,
                                             .bits = o.bits,
                                             .group_size = o.group_size,
                                             .grid = o.nf4 ? sinq::grid::nf4 : sinq::grid::uniform,
                                             .has_col_scale = true,
                                             .col_scale_type = sinq::dtype::f32},
                                            "selftest");
  for (std::uint8_t& code : q.codes) code = static_cast<std::uint8_t>(random() >> 20 & sinq::max_code(o.bits));
  const float middle = o.nf4 ? 0.0f : 0.5f * static_cast<float>(sinq::max_code(o.bits));
  for (float& scale : q.scale) scale = (0.5f + between(random)) * 0.02f / static_cast<float>(sinq::max_code(o.bits));
  for (float& zero : q.zero) zero = middle + between(random);
  for (float& t : q.col_scale) t = std::exp(static_cast<float>(o.reach) * (2 * between(random) - 1));
  const sinq::packed_matrix packed = must(sinq::pack(q));
  return {must(sinq::cuda::to_device_layout(packed)), with_dense ? sinq::dequantize(packed) : std::vector<float>{}};
}

sinq::cuda::device_image quantized_on_cpu(std::span<const float> w, const quantized_options& o) {
  sinq::quantize_options options{.method = o.balance ? (o.nf4 ? sinq::method::sinq_nf4 : sinq::method::sinq)
                                                     : (o.nf4 ? sinq::method::nf4 : sinq::method::rtn),
                                 .bits = o.bits,
                                 .group_size = o.group_size,
                                 .col_scale = sinq::dtype::f32,
                                 .symmetric = o.symmetric};
  options.refine = sinq::refine_mode::none;
  const auto q = must(sinq::quantize(sinq::matrix_view<const float>{w.data(), o.rows, o.cols}, options));
  return must(sinq::cuda::to_device_layout(must(sinq::pack(q))));
}

std::vector<float> random_floats(std::size_t count, std::uint64_t seed, double size) {
  std::mt19937_64 random{seed};
  std::normal_distribution<float> normal{0, static_cast<float>(size)};
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

std::uint16_t to_bits(float value, bool is_bf16) {
  return is_bf16 ? Eigen::numext::bit_cast<std::uint16_t>(static_cast<sinq::bfloat16>(value))
                 : Eigen::numext::bit_cast<std::uint16_t>(static_cast<sinq::float16>(value));
}

float from_bits(std::uint16_t bits, bool is_bf16) {
  return is_bf16 ? static_cast<float>(Eigen::numext::bit_cast<sinq::bfloat16>(bits))
                 : static_cast<float>(Eigen::numext::bit_cast<sinq::float16>(bits));
}

double worst_error(const sinq::cuda::device_image& image, std::span<const std::uint16_t> x, bool is_bf16,
                   std::size_t tokens, std::span<const float> bias, std::span<const float> y, unsigned step,
                   bool f16_levels) {
  const sinq::cuda::device_format& f = image.format;
  std::vector<double> prepared(tokens * f.cols);
  for (std::size_t n = 0; n < prepared.size(); ++n)
    prepared[n] = from_bits(to_bits(from_bits(x[n], is_bf16) * image.t[n % f.cols], is_bf16), is_bf16);
  double worst = 0;
  for (unsigned i = 0; i < f.rows; i += step) {
    std::vector<double> level(f.cols), scale(f.cols), zero(f.cols);
    for (unsigned j = 0; j < f.cols; ++j) {
      const element e = element_at(image, i, j);
      const bool rounded = f.form == sinq::cuda::code_form::table4;
      const bool to_bf16 = is_bf16 && !f16_levels;
      level[j] = rounded ? from_bits(to_bits(static_cast<float>(e.level), to_bf16), to_bf16) : e.level;
      scale[j] = e.scale * double{image.unit[j / f.group_size]};
      zero[j] = e.zero;
    }
    for (std::size_t m = 0; m < tokens; ++m) {
      double sum = bias.empty() ? 0 : double{bias[i]}, size = std::fabs(sum);
      for (unsigned j = 0; j < f.cols; ++j) {
        const double by = scale[j] * prepared[m * f.cols + j];
        sum += by * (level[j] - zero[j]);
        size += std::fabs(by) * (std::fabs(level[j]) + std::fabs(zero[j]));
      }
      const double error = std::fabs(double{y[m * f.rows + i]} - sum) / size;
      worst = error <= worst ? worst : std::isfinite(error) ? error : std::numeric_limits<double>::infinity();
    }
  }
  return worst;
}

} // namespace selftest
