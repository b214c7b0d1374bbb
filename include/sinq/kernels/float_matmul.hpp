#pragma once

#include "../core/parallel.hpp"
#include "../core/weight_view.hpp"
#include "../core/wide.hpp"
#include "matmul_options.hpp"

namespace sinq {
namespace detail {

/// Rows of W, all in floats, times all tokens: the inner loop of products with floats. Four rows meet four tokens (or
/// two, where vectors have eight lanes and registers are few) in sums that stay in registers.
struct float_product_loop {
  /// A block of W and the columns of x and the rows of y that belong to it.
  struct block {
    const float* w;
    const float* x;
    float* y;
    std::size_t w_stride, x_stride, y_stride, rows, tokens, cols;
    bool is_first; ///< y is written; otherwise added to
  };

  template <std::size_t W>
  SINQ_INLINE static void run(const block& b) {
    constexpr std::size_t rows = 4, tokens = W == 8 ? 2 : 4;
    std::size_t m = 0;
    for (; m + tokens <= b.tokens; m += tokens) multiply_rows<W, rows, tokens>(b, m);
    for (; m < b.tokens; ++m) multiply_rows<W, 2 * rows, 1>(b, m);
  }

private:
  template <std::size_t W, std::size_t Rows, std::size_t Tokens>
  SINQ_INLINE static void multiply_rows(const block& b, std::size_t m) {
    std::size_t i = 0;
    for (; i + Rows <= b.rows; i += Rows) multiply<W, Rows, Tokens>(b, i, m);
    for (; i < b.rows; ++i) multiply<W, 1, Tokens>(b, i, m);
  }

  template <std::size_t W, std::size_t Rows, std::size_t Tokens>
  SINQ_INLINE static void multiply(const block& b, std::size_t i, std::size_t m) {
    const float* const w = b.w + i * b.w_stride;
    const float* const x = b.x + m * b.x_stride;
    vec<float, W> sum[Rows][Tokens]{};
    std::size_t j = 0;
    for (; j + W <= b.cols; j += W) {
      vec<float, W> some_x[Tokens];
#pragma GCC unroll 4
      for (std::size_t t = 0; t < Tokens; ++t) load(x + t * b.x_stride + j, some_x[t]);
#pragma GCC unroll 8
      for (std::size_t r = 0; r < Rows; ++r) {
        vec<float, W> some_w;
        load(w + r * b.w_stride + j, some_w);
#pragma GCC unroll 4
        for (std::size_t t = 0; t < Tokens; ++t) sum[r][t] += some_w * some_x[t];
      }
    }
    for (std::size_t r = 0; r < Rows; ++r)
      for (std::size_t t = 0; t < Tokens; ++t) {
        sum_of_lanes<W>(sum[r][t]);
        float all = sum[r][t][0];
        for (std::size_t k = j; k < b.cols; ++k) all += w[r * b.w_stride + k] * x[t * b.x_stride + k];
        float& y = b.y[(m + t) * b.y_stride + i + r];
        y = b.is_first ? all : y + all;
      }
  }
};

/// One call of matmul with weights in floats: rows are made into floats in the first cache, some columns at a time.
template <class = void>
[[nodiscard]] result<void> run_float_matmul(const weight_view& w, matrix_view<const float> x, matrix_view<float> y,
                                            const matmul_options& options) {
  if (result<void> ok = check_isa(); !ok) return ok;
  if (result<void> ok = check_shapes(w.rows(), w.cols(), x.rows(), x.cols(), y, options.bias); !ok) return ok;
  if (w.cols() == 0) return make_error(errc::empty_matrix, "matmul: the weight has no columns");
  if (y.empty()) return {};
  constexpr std::size_t rows_at_once = 8, cols_at_once = 512, products_at_once = std::size_t{1} << 20;
  const auto in_place = w.floats();
  executor& threads = options.threads != nullptr ? *options.threads : default_executor();
  const auto multiply = [&](std::size_t begin, std::size_t end) -> result<void> {
    std::array<float, rows_at_once * cols_at_once> scratch;
    for (std::size_t i = begin; i < end; i += rows_at_once) {
      const std::size_t rows = std::min(rows_at_once, end - i);
      for (std::size_t j = 0; j < w.cols(); j += cols_at_once) {
        const std::size_t cols = std::min(cols_at_once, w.cols() - j);
        const float* from = in_place ? &(*in_place)(i, j) : scratch.data();
        for (std::size_t r = 0; r < rows && !in_place; ++r)
          w.load(i + r, j, std::span{scratch}.subspan(r * cols_at_once, cols));
        const float_product_loop::block b{.w = from,
                                          .x = x.data() + j,
                                          .y = y.data() + i,
                                          .w_stride = in_place ? in_place->stride() : cols_at_once,
                                          .x_stride = x.stride(),
                                          .y_stride = y.stride(),
                                          .rows = rows,
                                          .tokens = x.rows(),
                                          .cols = cols,
                                          .is_first = j == 0};
        run_wide_fused<float_product_loop>(b);
      }
    }
    if (!options.bias.empty())
      for (std::size_t m = 0; m < y.rows(); ++m)
        for (std::size_t i = begin; i < end; ++i) y(m, i) += options.bias[i];
    return {};
  };
  const std::size_t blocks = products_at_once / (rows_at_once * w.cols() * x.rows()) + 1;
  return parallel_for(threads, w.rows(), blocks * rows_at_once, multiply);
}

#ifdef SINQ_SEPARATE_COMPILATION
extern template result<void> run_float_matmul<void>(const weight_view&, matrix_view<const float>, matrix_view<float>,
                                                    const matmul_options&);
#endif

} // namespace detail

/// Multiplies activations by a weight that is not quantized, such as an embedding, read where it lies.
/// y = x W^T + bias,  y[m][i] = sum_j W[i][j] x[m][j] + bias[i]
/// @param w  [N x K] of any floating type, borrowed
/// @param x  [M x K], borrowed; values that are not finite make their own token's outputs NaN
/// @param y  [M x N], written
/// @errors   errc::invalid_argument (shapes), errc::empty_matrix (no columns), those of check_isa
/// Numerics: f32 sums in W lanes over blocks of 512 columns, |error| <= (K / 16 + 20) 2^-24 sum |terms| with 16 lanes.
/// The same for any number of threads.
[[nodiscard]] inline result<void> matmul(const weight_view& w, matrix_view<const float> x, matrix_view<float> y,
                                         const matmul_options& options = {}) {
  return detail::run_float_matmul<>(w, x, y, options);
}

} // namespace sinq
