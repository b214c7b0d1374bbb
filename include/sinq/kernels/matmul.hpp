#pragma once

#include "kept_buffer.hpp"
#include "lanes_reader.hpp"
#include "matmul_options.hpp"

#include <optional>

namespace sinq {

namespace detail {

/// One call of matmul.
class panel_matmul {
public:
  /// Chooses a kernel and multiplies. Where there are very many tokens, and so few columns that a thread's share stays
  /// in its second cache from one matrix to the next, each thread has its own tokens, and makes values of all codes.
  [[nodiscard]] static result<void> run(const panel_matrix& w, const weight_view& x, matrix_view<float> y,
                                        const matmul_options& o) {
    constexpr std::size_t very_many = 128, kept_bytes = std::size_t{1} << 19; // of one thread, in bf16
    const kernel k = kernel_of(w.format, x.rows(), o);
    executor& threads = o.threads != nullptr ? *o.threads : default_executor();
    const std::size_t parts = threads.concurrency();
    const std::size_t share = (x.rows() + parts - 1) / parts;
    if (parts == 1 || x.rows() < parts * very_many || share * x.cols() * size_bytes(dtype::bf16) > kept_bytes)
      return panel_matmul{w, x, y, o, k}();
    serial_executor here;
    matmul_options alone = o;
    alone.threads = &here;
    return parallel_for(threads, x.rows(), (share + tile_tokens - 1) / tile_tokens * tile_tokens,
                        [&](std::size_t begin, std::size_t end) {
                          const weight_view tokens{x.bytes(begin, 0), x.type(), end - begin, x.cols(), x.row_bytes()};
                          return panel_matmul{w, tokens, y.block(begin, 0, end - begin, y.cols()), alone, k}();
                        });
  }

  panel_matmul(const panel_matrix& w, const weight_view& x, matrix_view<float> y, const matmul_options& o,
               const kernel& k)
      : w_{w}, f_{w.format}, x_{x}, y_{y}, o_{o}, kernel_{k}, shape_{f_} {
    levels_ = custom_levels(w.levels);
    if (k.form == activation_form::floats) segments_ = segments_of(f_);
    if ((k.form == activation_form::bytes || k.form == activation_form::byte_tiles) && f_.grid != grid::uniform)
      book_ = byte_codebook{levels(f_, levels_)};
  }

  [[nodiscard]] result<void> operator()() {
    executor& threads = o_.threads != nullptr ? *o_.threads : default_executor();
    // at most the share of a thread, in pairs
    const std::size_t parts = threads.concurrency() * panels_at_once;
    kernel_.panels = std::min(kernel_.panels, (shape_.panels_per_tile + parts - 1) / parts * panels_at_once);
    for (std::size_t m = 0; m < x_.rows(); m += kernel_.tokens)
      for (std::size_t tile = 0; tile < f_.row_tiles(); ++tile) {
        const std::size_t tokens = std::min(kernel_.tokens, x_.rows() - m);
        const activation_writer prepare{x_,       f_, col_scale(tile), kernel_.form, kernel_.most_more, int8_step(f_),
                                        segments_};
        const activations a = prepare(m, tokens, threads);
        const std::size_t grain = panels_of_task(a.stride * tokens, threads.concurrency());
        const auto multiply = [&](std::size_t begin, std::size_t end) -> result<void> {
          multiply_panels(a, m, tokens, tile * shape_.panels_per_tile + begin, tile * shape_.panels_per_tile + end);
          return {};
        };
        if (result<void> ok = parallel_for(threads, shape_.panels_per_tile, grain, multiply); !ok) return ok;
      }
    return {};
  }

private:
  [[nodiscard]] static kernel kernel_of(const matrix_format& f, std::size_t tokens, const matmul_options& o) {
    const bool wanted = o.precision == precision::automatic ? f.bits <= 5 : o.precision == precision::int8;
    const bool bytes = wanted && int8_step(f) != 0;
    return bytes ? int8_kernel(f.bits, int8_step(f), tokens) : exact_kernel(f.bits);
  }

  /// What a thread takes at once, in whole calls of the kernel: even shares of about 2^18 products, which are worth the
  /// taking and let threads end together.
  /// @param products  of a row
  [[nodiscard]] std::size_t panels_of_task(std::size_t products, std::size_t threads) const {
    constexpr std::size_t wanted = std::size_t{1} << 18;
    if (threads == 1) return shape_.panels_per_tile;
    const std::size_t share = (shape_.panels_per_tile + threads - 1) / threads;
    const std::size_t tasks = share * panel_rows * products / wanted + 1; // of a thread
    return ((share + tasks - 1) / tasks + kernel_.panels - 1) / kernel_.panels * kernel_.panels;
  }

  [[nodiscard]] std::span<const float> col_scale(std::size_t tile) {
    if (!f_.has_col_scale) return {};
    t_.resize(f_.cols);
    load_floats(w_.col_scale.data() + tile * f_.cols * size_bytes(f_.col_scale_type), f_.col_scale_type, t_);
    return t_;
  }

  /// What all products of some tokens have in common.
  [[nodiscard]] panel_product product_of(const activations& a) const {
    return {.codes = nullptr,
            .panel_bytes = shape_.blocks * block_bytes(f_.bits),
            .groups = f_.groups(),
            .super_lanes = (f_.super_group == 0 ? f_.groups() : f_.super_group) * panel_rows,
            .scale = {},
            .zero = {},
            .aux_apart = f_.groups() * panel_rows,
            .super_apart = f_.super_groups() * panel_rows,
            .y = nullptr,
            .levels = f_.grid == grid::uniform ? nullptr : levels(f_, levels_).data(),
            .byte_levels = book_ ? book_->values.data() : nullptr,
            .most_level = book_ ? book_->most : 0.0f,
            .tokens = a.tokens,
            .panels = kernel_.panels,
            .steps = a.steps,
            .sum = a.sum.data(),
            .segments = segments_.data(),
            .values = a.values.data(),
            .stride = a.stride,
            .bytes = a.bytes.data(),
            .unit = a.unit.data(),
            .tiles = a.tiles.data(),
            .step = int8_step(f_),
            .group_size = f_.groups() == 1 ? a.stride : f_.group_size};
  }

  void multiply_panels(const activations& a, std::size_t token, std::size_t tokens, std::size_t begin,
                       std::size_t end) const {
    panel_product p = product_of(a);
    const std::size_t panel_bytes = p.panel_bytes, lanes = p.aux_apart, super_lanes = p.super_apart;
    lanes_reader give_lanes{w_, kernel_, book_ ? &*book_ : nullptr};
    kept_buffer<float> out{kernel_.panels * p.tokens * panel_rows};
    p.y = out.data();
    for (std::size_t panel = begin; panel < end; panel += p.panels) {
      p.panels = panel + 1 == end ? 1 : std::min(kernel_.panels, (end - panel) / panels_at_once * panels_at_once);
      p.codes = w_.codes.data() + panel * panel_bytes;
      p.panel_bytes = p.panels > 1 ? panel_bytes : 0;
      p.aux_apart = p.panels > 1 ? lanes : 0;
      p.super_apart = p.panels > 1 ? super_lanes : 0;
      give_lanes(panel, p.panels, p);
      kernel_.multiply(p);
      write(p, panel, token, tokens);
    }
  }

  /// Writes the rows of some panels of one tile.
  void write(const panel_product& p, std::size_t panel, std::size_t token, std::size_t tokens) const {
    const std::size_t i0 = shape_.row_begin(panel);
    std::size_t count = 0;
    for (std::size_t n = 0; n < p.panels; ++n) count += shape_.row_count(panel + n);
    for (std::size_t m = 0; m < tokens; ++m) {
      float* const to = y_.row(token + m).data() + i0;
      for (std::size_t i = 0; i < count; i += panel_rows) {
        const float* const from = p.y + (i / panel_rows * p.tokens + m) * panel_rows;
        if (count - i >= panel_rows)
          std::memcpy(to + i, from, panel_rows * sizeof(float));
        else
          std::copy_n(from, count - i, to + i);
      }
      if (!o_.bias.empty())
        for (std::size_t i = 0; i < count; ++i) to[i] += o_.bias[i0 + i];
    }
  }

  const panel_matrix& w_;
  const matrix_format& f_;
  const weight_view& x_;
  matrix_view<float> y_;
  const matmul_options& o_;
  kernel kernel_;
  panel_shape shape_;
  std::vector<segment> segments_;
  std::vector<float> levels_, t_;
  std::optional<byte_codebook> book_;
};

/// What matmul does. A template, so that it can be compiled in one place.
template <class = void>
[[nodiscard]] result<void> run_matmul(const panel_matrix& w, const weight_view& x, matrix_view<float> y,
                                      const matmul_options& options) {
  if (result<void> ok = check_isa(); !ok) return ok;
  const matrix_format& f = w.format;
  if (result<void> ok = check_shapes(f.rows, f.cols, x.rows(), x.cols(), y, options.bias); !ok) return ok;
  return panel_matmul::run(w, x, y, options);
}

#ifdef SINQ_SEPARATE_COMPILATION
extern template result<void> run_matmul<void>(const panel_matrix&, const weight_view&, matrix_view<float>,
                                              const matmul_options&);
#endif

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
/// are multiplied exactly instead. On AMX, 17 tokens and more (9 with scales for 32 columns) are multiplied in bf16, x'
/// rounded by at most 2^-8 of its own size and weights by 1.28 2^-8. The same for any number of threads.
/// Compiling it takes a compiler half a minute; sinq/compile.hpp has it compiled once for a program of many units.
[[nodiscard]] inline result<void> matmul(const panel_matrix& w, const weight_view& x, matrix_view<float> y,
                                         const matmul_options& options = {}) {
  return detail::run_matmul<>(w, x, y, options);
}

} // namespace sinq
