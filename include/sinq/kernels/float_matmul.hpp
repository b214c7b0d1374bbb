#pragma once

#include "../core/parallel.hpp"
#include "../core/weight_view.hpp"
#include "../core/wide.hpp"
#include "matmul_options.hpp"

#include <bit>

namespace sinq {
namespace detail {

/// Few tokens: rows of W meet some tokens in sums along the columns that stay in registers, of which vectors of eight
/// lanes have few.
struct float_product_loop {
  /// A block of W, stored as T, and the columns of x and the rows of y that belong to it.
  template <class T>
  struct block {
    const byte* w;
    const float* x;
    float* y;
    std::size_t w_bytes, x_stride, y_stride; ///< from row to row
    std::size_t rows, tokens, cols;
  };

  template <std::size_t W, class T>
  SINQ_INLINE static void run(const block<T>& b) {
    std::size_t i = 0;
    for (; i + rows_at_once <= b.rows; i += rows_at_once) multiply_tokens<W, rows_at_once, most_tokens<W>>(b, i, 0);
    for (; i < b.rows; ++i) multiply_tokens<W, 1, most_tokens<W>>(b, i, 0);
  }

private:
  static constexpr std::size_t rows_at_once = 8;
  template <std::size_t W>
  static constexpr std::size_t most_tokens = W == 8 ? 2 : 4;

  template <std::size_t W, std::size_t Rows, std::size_t Tokens, class T>
  SINQ_INLINE static void multiply_tokens(const block<T>& b, std::size_t i, std::size_t m) {
    constexpr std::size_t rows = Tokens == 1 ? Rows : std::min<std::size_t>(Rows, 4);
    for (; m + Tokens <= b.tokens; m += Tokens)
      for (std::size_t r = 0; r < Rows; r += rows) multiply<W, rows, Tokens>(b, i + r, m);
    if constexpr (Tokens > 1) multiply_tokens<W, Rows, Tokens - 1>(b, i, m);
  }

  template <std::size_t W, std::size_t Rows, std::size_t Tokens, class T>
  SINQ_INLINE static void multiply(const block<T>& b, std::size_t i, std::size_t m) {
    const byte* const w = b.w + i * b.w_bytes;
    const float* const x = b.x + m * b.x_stride;
    vec<float, W> sum[Tokens * Rows]{};
    const std::size_t whole = b.cols / W * W;
    for (std::size_t j = 0; j < whole; j += W) {
      add_products<W, Rows, Tokens, T>(w + j * sizeof(T), b.w_bytes, x + j, b.x_stride, sum);
      for (std::size_t r = 0; r < Rows; ++r) // of the rows that are next
        __builtin_prefetch(w + (rows_at_once + r) * b.w_bytes + j * sizeof(T));
    }
    if (whole < b.cols) {
      const std::size_t rest = b.cols - whole;
      byte last_w[Rows][W * sizeof(T)]{};
      float last_x[Tokens][W]{};
      for (std::size_t r = 0; r < Rows; ++r)
        std::memcpy(last_w[r], w + r * b.w_bytes + whole * sizeof(T), rest * sizeof(T));
      for (std::size_t t = 0; t < Tokens; ++t) std::memcpy(last_x[t], x + t * b.x_stride + whole, rest * sizeof(float));
      add_products<W, Rows, Tokens, T>(last_w[0], W * sizeof(T), last_x[0], W, sum);
    }
    store_sums<W, Rows>(sum, b.y + m * b.y_stride + i, b.y_stride);
  }

  /// sum[t Rows + r] += w[r] x[t], W columns of each
  template <std::size_t W, std::size_t Rows, std::size_t Tokens, class T>
  SINQ_INLINE static void add_products(const byte* w, std::size_t w_bytes, const float* x, std::size_t x_stride,
                                       vec<float, W> (&sum)[Tokens * Rows]) {
    vec<float, W> some_x[Tokens], some_w;
#pragma GCC unroll 4
    for (std::size_t t = 0; t < Tokens; ++t) load(x + t * x_stride, some_x[t]);
#pragma GCC unroll 8
    for (std::size_t r = 0; r < Rows; ++r) {
      load_vector<T, W>(w + r * w_bytes, some_w);
#pragma GCC unroll 4
      for (std::size_t t = 0; t < Tokens; ++t) sum[t * Rows + r] += some_w * some_x[t];
    }
  }

  /// y[t][r] = the lanes of sum[t Rows + r] together, as many vectors as a vector has lanes folded at once.
  template <std::size_t W, std::size_t Rows, std::size_t All>
  SINQ_INLINE static void store_sums(vec<float, W> (&sum)[All], float* y, std::size_t y_stride) {
    constexpr std::size_t tokens = All / Rows, some = std::min(W, Rows * (std::has_single_bit(tokens) ? tokens : 1));
    for (std::size_t n = 0; n < All; n += some) {
      join_lanes<W, some>(sum + n, take_sum{});
      float found[W];
      store(sum[n], found);
      for (std::size_t k = 0; k < some; ++k) y[(n + k) / Rows * y_stride + (n + k) % Rows] = found[k * (W / some)];
    }
  }
};

/// Rows [begin, end) of y = x W^T, of a weight that is read where it lies, once for some tokens.
template <class T>
void multiply_in_place(const weight_view& w, matrix_view<const float> x, matrix_view<float> y, std::size_t begin,
                       std::size_t end) {
  run_wide_fused<float_product_loop>(float_product_loop::block<T>{.w = w.bytes(begin, 0),
                                                                  .x = x.data(),
                                                                  .y = y.data() + begin,
                                                                  .w_bytes = w.row_bytes(),
                                                                  .x_stride = x.stride(),
                                                                  .y_stride = y.stride(),
                                                                  .rows = end - begin,
                                                                  .tokens = x.rows(),
                                                                  .cols = w.cols()});
}

/// Many tokens: some columns of 2 W rows of W are turned around, so that each value of a token meets the rows side by
/// side, and sums of many tokens stay in registers.
struct float_tile_loop {
  static constexpr std::size_t rows_at_once = 32, cols_at_once = 128;
  using scratch = std::array<float, rows_at_once * cols_at_once>;

  /// Some rows of W in floats, and the columns of x and the rows of y that belong to them.
  struct block {
    const scratch* w; ///< [rows_at_once x cols_at_once]
    const float* x;
    float* y;
    std::size_t x_stride, y_stride; ///< from row to row
    std::size_t rows, tokens, cols;
    bool is_first; ///< y is written; otherwise added to
  };

  template <std::size_t W>
  SINQ_INLINE static void run(const block& b) {
    std::array<float, 2 * W * cols_at_once> turned;
    for (std::size_t i = 0; i < b.rows; i += 2 * W) {
      for (std::size_t half = 0; half < 2; ++half)
        for (std::size_t j = 0; j < b.cols; j += W) {
          vec<float, W> square[W];
          for (std::size_t r = 0; r < W; ++r) load(b.w->data() + (i + half * W + r) * cols_at_once + j, square[r]);
          transpose<W>(square);
          for (std::size_t r = 0; r < W; ++r) store(square[r], turned.data() + (j + r) * 2 * W + half * W);
        }
      multiply_tokens<W, W == 8 ? 4 : 8>(b, turned.data(), i, 0);
    }
  }

private:
  template <std::size_t W, std::size_t Tokens>
  SINQ_INLINE static void multiply_tokens(const block& b, const float* w, std::size_t i, std::size_t m) {
    for (; m + Tokens <= b.tokens; m += Tokens) multiply<W, Tokens>(b, w, i, m);
    if constexpr (Tokens > 1) multiply_tokens<W, Tokens / 2>(b, w, i, m);
  }

  template <std::size_t W, std::size_t Tokens>
  SINQ_INLINE static void multiply(const block& b, const float* w, std::size_t i, std::size_t m) {
    const float* const x = b.x + m * b.x_stride;
    vec<float, W> sum[Tokens][2]{}, left, right;
    for (std::size_t j = 0; j < b.cols; ++j) {
      load(w + 2 * W * j, left);
      load(w + 2 * W * j + W, right);
#pragma GCC unroll 8
      for (std::size_t t = 0; t < Tokens; ++t) {
        const float value = x[t * b.x_stride + j];
        sum[t][0] += left * value;
        sum[t][1] += right * value;
      }
    }
    float* const y = b.y + m * b.y_stride + i;
    for (std::size_t t = 0; t < Tokens; ++t)
      for (std::size_t half = 0; half < 2; ++half)
        add_rows<W>(sum[t][half], b.rows - std::min(b.rows, i + half * W), y + t * b.y_stride + half * W, b.is_first);
  }

  /// Adds the lanes of as many rows as there are.
  template <std::size_t W>
  SINQ_INLINE static void add_rows(const vec<float, W>& sum, std::size_t rows, float* y, bool is_first) {
    if (rows >= W) {
      vec<float, W> before{};
      if (!is_first) load(y, before);
      return store(before + sum, y);
    }
    for (std::size_t r = 0; r < rows; ++r) y[r] = is_first ? sum[r] : y[r] + sum[r];
  }
};

/// The same for any type and many tokens: made into floats in the first cache, some columns at a time.
template <class = void>
void multiply_as_floats(const weight_view& w, matrix_view<const float> x, matrix_view<float> y, std::size_t begin,
                        std::size_t end) {
  constexpr std::size_t rows_at_once = float_tile_loop::rows_at_once, cols_at_once = float_tile_loop::cols_at_once;
  float_tile_loop::scratch scratch{};
  for (std::size_t i = begin; i < end; i += rows_at_once) {
    const std::size_t rows = std::min(rows_at_once, end - i);
    for (std::size_t j = 0; j < w.cols(); j += cols_at_once) {
      const std::size_t cols = std::min(cols_at_once, w.cols() - j);
      for (std::size_t r = 0; r < rows; ++r) w.load(i + r, j, std::span{scratch}.subspan(r * cols_at_once, cols));
      run_wide_fused<float_tile_loop>(float_tile_loop::block{.w = &scratch,
                                                             .x = x.data() + j,
                                                             .y = y.data() + i,
                                                             .x_stride = x.stride(),
                                                             .y_stride = y.stride(),
                                                             .rows = rows,
                                                             .tokens = x.rows(),
                                                             .cols = cols,
                                                             .is_first = j == 0});
    }
  }
}

/// One call of matmul with weights in floats.
template <class = void>
[[nodiscard]] result<void> run_float_matmul(const weight_view& w, matrix_view<const float> x, matrix_view<float> y,
                                            const matmul_options& options) {
  if (result<void> ok = check_isa(); !ok) return ok;
  if (result<void> ok = check_shapes(w.rows(), w.cols(), x.rows(), x.cols(), y, options.bias); !ok) return ok;
  if (w.cols() == 0) return make_error(errc::empty_matrix, "matmul: the weight has no columns");
  if (y.empty()) return {};
  constexpr std::size_t rows_at_once = float_tile_loop::rows_at_once, few_tokens = 4;
  constexpr std::size_t products_at_once = std::size_t{1} << 20;
  executor& threads = options.threads != nullptr ? *options.threads : default_executor();
  const bool in_place = x.rows() <= few_tokens;
  const auto multiply = [&](std::size_t begin, std::size_t end) -> result<void> {
    if (in_place && w.type() == dtype::f32)
      multiply_in_place<float>(w, x, y, begin, end);
    else if (in_place && w.type() == dtype::bf16)
      multiply_in_place<bfloat16>(w, x, y, begin, end);
    else if (in_place && w.type() == dtype::f16)
      multiply_in_place<float16>(w, x, y, begin, end);
    else
      multiply_as_floats<>(w, x, y, begin, end);
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
/// Numerics: f32 sums; of up to four tokens in the lanes of a vector, of more over blocks of 128 columns:
/// |error| <= (K / 16 + 148) 2^-24 sum |terms| with 16 lanes. The same for any number of threads.
[[nodiscard]] inline result<void> matmul(const weight_view& w, matrix_view<const float> x, matrix_view<float> y,
                                         const matmul_options& options = {}) {
  return detail::run_float_matmul<>(w, x, y, options);
}

} // namespace sinq
