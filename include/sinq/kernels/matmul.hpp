#pragma once

#include "dispatch.hpp"

#include <optional>

namespace sinq {

/// What the activations are multiplied as.
enum class precision : std::uint8_t {
  exact, ///< floats
  int8,  ///< bytes, with a scale for every 64 columns (32 where groups are no multiple of 64)
};

/// How `matmul` works.
struct matmul_options {
  sinq::precision precision = precision::exact;
  std::span<const float> bias{}; ///< [N], or nothing
  executor* threads = nullptr;   ///< nullptr: default_executor()
};

namespace detail {

/// Tokens that are prepared, and go through a panel, at once.
inline constexpr std::size_t tokens_at_once = 64;

/// The levels of a codebook in bytes, v = 128 + round(127 level / most), and what they ask of scales and zero points:
///   level ~ (v - 128) most / 127,   s (level - z) = s most / 127 (v - (128 + 127 z / most))
struct byte_codebook {
  explicit byte_codebook(std::span<const float> levels) {
    for (const float level : levels) most = std::max(most, std::fabs(level));
    if (most == 0) most = 1;
    for (std::size_t n = 0; n < levels.size(); ++n)
      values[n] = static_cast<std::uint8_t>(128 + std::lround(127 * levels[n] / most));
  }

  /// Makes scales and zero points of levels those of v.
  void adapt(std::span<float> scale, std::span<float> zero) const {
    for (float& value : scale) value *= most / 127;
    for (float& value : zero) value = 128 + value * (127 / most);
  }

  float most = 0;
  std::array<std::uint8_t, 16> values{};
};

/// One call of matmul.
class panel_matmul {
public:
  panel_matmul(const panel_matrix& w, const weight_view& x, matrix_view<float> y, const matmul_options& o)
      : w_{w}, f_{w.format}, x_{x}, y_{y}, o_{o}, shape_{f_}, step_{o.precision == precision::int8 ? int8_step(f_)
                                                                                                   : 0} {
    levels_ = custom_levels(w.levels);
    if (step_ == 0) segments_ = segments_of(f_);
    if (step_ != 0 && f_.grid != grid::uniform) book_ = byte_codebook{levels(f_, levels_)};
  }

  [[nodiscard]] result<void> operator()() {
    for (std::size_t m = 0; m < x_.rows(); m += tokens_at_once)
      for (std::size_t tile = 0; tile < f_.row_tiles(); ++tile) {
        const std::size_t tokens = std::min(tokens_at_once, x_.rows() - m);
        const activations a = prepare(x_, m, tokens, f_, col_scale(tile), step_, segments_);
        // pairs of panels, of about a million products
        const std::size_t grain =
            ((std::size_t{1} << 20) / (panels_at_once * panel_rows * a.stride * tokens) + 1) * panels_at_once;
        const auto multiply = [&](std::size_t begin, std::size_t end) -> result<void> {
          multiply_panels(a, m, tile * shape_.panels_per_tile + begin, tile * shape_.panels_per_tile + end);
          return {};
        };
        executor& threads = o_.threads != nullptr ? *o_.threads : default_executor();
        if (result<void> ok = parallel_for(threads, shape_.panels_per_tile, grain, multiply); !ok) return ok;
      }
    return {};
  }

private:
  [[nodiscard]] std::span<const float> col_scale(std::size_t tile) {
    if (!f_.has_col_scale) return {};
    t_.resize(f_.cols);
    load_floats(w_.col_scale.data() + tile * f_.cols * size_bytes(f_.col_scale_type), f_.col_scale_type, t_);
    return t_;
  }

  void multiply_panels(const activations& a, std::size_t token, std::size_t begin, std::size_t end) const {
    const std::size_t lanes = f_.groups() * panel_rows;
    std::vector<float> scale(panels_at_once * lanes), zero(panels_at_once * lanes);
    aligned_buffer<float> out{panels_at_once * a.tokens * panel_rows, aligned_buffer<float>::uninitialized};
    const std::size_t panel_bytes = shape_.blocks * block_bytes(f_.bits);
    panel_product p{.codes = nullptr,
                    .panel_bytes = panel_bytes,
                    .groups = f_.groups(),
                    .scale = scale.data(),
                    .zero = zero.data(),
                    .y = out.data(),
                    .levels = f_.grid == grid::uniform ? nullptr : levels(f_, levels_).data(),
                    .byte_levels = book_ ? book_->values.data() : nullptr,
                    .tokens = a.tokens,
                    .steps = a.steps,
                    .sum = a.sum.data(),
                    .segments = segments_.data(),
                    .values = a.values.data(),
                    .stride = a.stride,
                    .bytes = a.bytes.data(),
                    .unit = a.unit.data(),
                    .step = step_,
                    .group_size = f_.groups() == 1 ? a.stride : f_.group_size};
    const kernel_function multiply = step_ == 0 ? exact_kernel(f_.bits) : int8_kernel(f_.bits);
    for (std::size_t panel = begin; panel < end; panel += panels_at_once) {
      const std::size_t count = std::min(panels_at_once, end - panel);
      p.codes = w_.codes.data() + panel * panel_bytes;
      p.panel_bytes = count == panels_at_once ? panel_bytes : 0;
      for (std::size_t n = 0; n < count; ++n) {
        const std::span<float> s = std::span{scale}.subspan(n * lanes, lanes);
        const std::span<float> z = std::span{zero}.subspan(n * lanes, lanes);
        load_auxiliaries(w_, panel + n, s, z);
        if (book_) book_->adapt(s, z);
      }
      multiply(p);
      for (std::size_t n = 0; n < count; ++n)
        for (std::size_t m = 0; m < a.tokens; ++m)
          write(panel + n, out.data() + (n * a.tokens + m) * panel_rows, y_.row(token + m));
    }
  }

  void write(std::size_t panel, const float* from, std::span<float> to) const {
    const std::size_t i0 = shape_.row_begin(panel);
    for (std::size_t r = 0; r < shape_.row_count(panel); ++r)
      to[i0 + r] = o_.bias.empty() ? from[r] : from[r] + o_.bias[i0 + r];
  }

  const panel_matrix& w_;
  const matrix_format& f_;
  const weight_view& x_;
  matrix_view<float> y_;
  const matmul_options& o_;
  panel_shape shape_;
  std::size_t step_;
  std::vector<segment> segments_;
  std::vector<float> levels_, t_;
  std::optional<byte_codebook> book_;
};

} // namespace detail

/// Multiplies activations by a quantized weight.
/// y = x W^T + bias,  y[m][i] = sum_g s[i][g] sum_{j in g} (level[code[i][j]] - z[i][g]) t[j] (R x[m])[j] + bias[i]
/// @param w  N x K in panels
/// @param x  [M x K] of any floating type, borrowed; values that are not finite make their own token's outputs NaN
/// @param y  [M x N], written
/// @errors   errc::invalid_argument (shapes), those of check_isa
/// Numerics: f32 sums. exact: |error| <= 1e-5 sum |terms|, terms being the products before z is taken off.
/// int8: activations are rounded to 1/127 of the largest x' of their 64 or 32 columns (a codebook's levels to 1/127 of
/// the largest one), half a step at most; groups that are no multiple of 32 columns, and codebooks of more than 4 bits,
/// are multiplied exactly instead. The same for any number of threads.
[[nodiscard]] inline result<void> matmul(const panel_matrix& w, const weight_view& x, matrix_view<float> y,
                                         const matmul_options& options = {}) {
  if (result<void> ok = check_isa(); !ok) return ok;
  const matrix_format& f = w.format;
  if (x.cols() != f.cols || y.rows() != x.rows() || y.cols() != f.rows)
    return make_error(errc::invalid_argument, "matmul: x is ", x.rows(), " x ", x.cols(), " and y ", y.rows(), " x ",
                      y.cols(), ", expected M x ", f.cols, " and M x ", f.rows);
  if (!options.bias.empty() && options.bias.size() != f.rows)
    return make_error(errc::invalid_argument, "matmul: bias has ", options.bias.size(), " entries, expected ", f.rows);
  return detail::panel_matmul{w, x, y, options}();
}

} // namespace sinq
