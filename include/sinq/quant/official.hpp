#pragma once

#include "options.hpp"
#include "tiles.hpp"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

/// The official package's own door to its quantizers, with its quirks: for results that are equal to the package's.
///
///   W -> f16 -> kurtosis of the whole matrix > 5 and method sinq?  -> rtn, t = 1 ("rtn (gated)")
///                                                                  -> Sinkhorn, then rtn
///     -> scale, zero, t -> f16 -> scale, zero -> u8 (quant_aux)
///
/// Source: huawei-csl/SINQ sinq/quantizer.py (Quantizer.quantize, rtn8), sinq/optimize.py, sinq/dual_shift.py.
namespace sinq::detail {

/// Kurtosis above which the package gives up the Sinkhorn normalisation.
inline constexpr double official_kurtosis_limit = 5.0;

[[nodiscard]] inline float to_f16(float value) {
  return as_stored(value, dtype::f16);
}

/// E[(x - mean)^4] / max(E[(x - mean)^2], 1e-6)^2 of all weights, in f64. The floor is the package's: small weights
/// look less peaked than they are.
[[nodiscard]] inline double official_kurtosis(std::span<const float16> w) {
  double sum = 0;
  for (const float16 value : w) sum += to_float(value);
  const double mean = sum / static_cast<double>(w.size());
  double second = 0;
  double fourth = 0;
  for (const float16 value : w) {
    const double square = (to_float(value) - mean) * (to_float(value) - mean);
    second += square;
    fourth += square * square;
  }
  const double count = static_cast<double>(w.size());
  const double variance = std::max(second / count, 1e-6);
  return fourth / count / (variance * variance);
}

/// One tile as the package quantizes it: the Sinkhorn normalisation, which a gated tile goes through and back (so that
/// its weights carry that rounding), and rtn whose step is at least 1e-4 / (2^b - 1), whatever the size of the weights.
/// All auxiliaries are rounded to f16 after the codes were found.
class official_tile_quantizer {
public:
  static constexpr bool row_independent = false;

  official_tile_quantizer(int bits, std::size_t group_size, bool balanced)
      : bits_{bits}, group_size_{group_size}, balanced_{balanced} {}

  [[nodiscard]] int bits() const { return bits_; }
  [[nodiscard]] std::size_t group_size() const { return group_size_; }

  [[nodiscard]] result<quantized_matrix> operator()(matrix_view<const float> w) const {
    auto n =
        sinkhorn_normalizer<float>{{.rule = sinkhorn_rule::reference, .f64_sums = true, .any_magnitude = false}}(w);
    if (!n) return std::move(n).error();
    quantized_matrix q = quantized_matrix::allocate(
        {.rows = w.rows(), .cols = w.cols(), .bits = bits_, .group_size = group_size_, .has_col_scale = balanced_}, "");
    for (std::size_t i = 0; i < w.rows(); ++i) {
      const std::span<float> row{n->values.data() + i * w.cols(), w.cols()};
      if (!balanced_)
        for (std::size_t j = 0; j < row.size(); ++j) row[j] = row[j] * n->col_scale[j] * n->row_scale[i];
      const group_params fit = quantize_row(row, q.codes.span().subspan(i * w.cols(), w.cols()));
      q.scale[i] = to_f16(balanced_ ? fit.scale * n->row_scale[i] : fit.scale);
      q.zero[i] = to_f16(fit.zero);
    }
    for (std::size_t j = 0; j < q.col_scale.size(); ++j) q.col_scale[j] = to_f16(n->col_scale[j]);
    return q;
  }

private:
  [[nodiscard]] group_params quantize_row(std::span<const float> w, std::span<std::uint8_t> codes) const {
    const auto [low, high] = std::minmax_element(w.begin(), w.end());
    const auto top = static_cast<float>(max_code(bits_));
    const float scale = std::max(*high - *low, 1e-4f) / top;
    const float zero = -std::nearbyint(*low / scale) + 0.0f; // + 0: no negative zero
    for (std::size_t j = 0; j < w.size(); ++j)
      codes[j] = static_cast<std::uint8_t>(std::clamp(std::nearbyint(w[j] / scale + zero), 0.0f, top));
    return {scale, zero};
  }

  int bits_;
  std::size_t group_size_;
  bool balanced_;
};

/// Replaces f16 values by what 8-bit codes of them stand for: the values in row-major order are [A, C], and each column
/// has a step and a least value of its own, all in f16.
/// @pre columns divides values.size()
inline void round_to_8_bits(std::span<float> values, std::size_t columns) {
  for (std::size_t c = 0; c < columns; ++c) {
    float low = values[c];
    float range = 0;
    for (std::size_t n = c; n < values.size(); n += columns) low = std::min(low, values[n]);
    for (std::size_t n = c; n < values.size(); n += columns) range = std::max(range, to_f16(values[n] - low));
    const float step = to_f16(range / 255.0f);
    for (std::size_t n = c; n < values.size(); n += columns) {
      const float place = to_f16(to_f16(values[n] - low) / step); // NaN for a column of equal values, whose code is 0
      const float code = step == 0 ? 0.0f : std::clamp(std::nearbyint(place), 0.0f, 255.0f);
      values[n] = to_f16(to_f16(code * step) + low);
    }
  }
}

/// Whether the package's door takes these options.
[[nodiscard]] inline result<void> check_compat(const quantize_options& o) {
  const auto refuse = [](const auto&... pieces) {
    return make_error(errc::invalid_argument, "compat official ", pieces...);
  };
  if (o.method != method::sinq && o.method != method::rtn) return refuse("has the methods sinq and rtn alone");
  if (o.aux != aux_dtype::f16 || o.col_scale.value_or(dtype::f16) != dtype::f16)
    return refuse("stores auxiliaries as f16");
  if (o.symmetric || o.zero != zero_mode::rounded) return refuse("has rounded zero points alone");
  if (o.tile_rows != 0) return refuse("has tiles of all rows alone");
  if (o.scale_bits != 0 || o.zero_bits != 0) return refuse("quantizes auxiliaries with quant_aux alone");
  if (o.refine.value_or(refine_mode::none) != refine_mode::none) return refuse("has no refinement");
  return {};
}

/// The group size that the package makes of the one asked for: halved until it divides the columns.
[[nodiscard]] inline result<std::size_t> official_group_size(std::size_t asked, std::size_t cols) {
  std::size_t size = asked;
  while (size >= 16 && cols % size != 0) size /= 2;
  if (size >= 16 && cols % size == 0) return size;
  return make_error(errc::invalid_argument, "compat official: group_size is ", asked,
                    ", expected one of at least 16 that divides the ", cols, " columns, halved or not");
}

/// The weights in f16.
[[nodiscard]] inline result<std::vector<float16>> cast_to_f16(const weight_view& w) {
  std::vector<float16> cast(w.rows() * w.cols());
  std::vector<float> row(w.cols());
  for (std::size_t i = 0; i < w.rows(); ++i) {
    w.load(i, 0, row);
    for (std::size_t j = 0; j < row.size(); ++j) {
      cast[i * row.size() + j] = static_cast<float16>(row[j]);
      if (is_finite(row[j]) && !is_finite(to_float(cast[i * row.size() + j])))
        return make_error(errc::not_representable, "compat official: the weight at row ", i, ", column ", j, " is ",
                          row[j], ", beyond the range of F16, to which the official package casts");
    }
  }
  return cast;
}

/// Quantizes as the official package does.
/// @pre     check_compat(o) and check_quantizable
/// @errors  errc::not_representable (a weight beyond f16), errc::invalid_argument (group_size; with quant_aux a number
/// of
///          groups that 32 does not divide), errc::non_finite, errc::cancelled
[[nodiscard]] inline result<quantized_matrix> quantize_official(const weight_view& w, const quantize_options& o) {
  const auto group_size = official_group_size(o.group_size, w.cols());
  if (!group_size) return group_size.error();
  const std::size_t groups = w.rows() * (w.cols() / *group_size);
  if (o.quant_aux && groups % 32 != 0)
    return make_error(errc::invalid_argument, "compat official: ", groups,
                      " groups, expected a multiple of 32 where auxiliaries are quantized");
  const auto cast = cast_to_f16(w);
  if (!cast) return cast.error();
  const bool gated = o.method == method::sinq && official_kurtosis(*cast) > official_kurtosis_limit;
  const bool balanced = o.method == method::sinq && !gated;
  matrix_format format = o.format(w.rows(), w.cols(), balanced);
  format.group_size = *group_size;
  std::string name = balanced ? "sinq" : "rtn";
  if (o.quant_aux) name += "_quantAux";
  auto q =
      quantize_tiles(weight_view{matrix_view<const float16>{cast->data(), w.rows(), w.cols()}}, format,
                     gated ? name + " (gated)" : name, official_tile_quantizer{o.bits, *group_size, balanced}, o.run);
  if (!q || !o.quant_aux) return q;
  round_to_8_bits(q->scale, groups / 32);
  round_to_8_bits(q->zero, 1);
  return q;
}

} // namespace sinq::detail
