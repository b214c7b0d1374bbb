#pragma once

#include "attention.hpp"
#include "config.hpp"
#include "weights.hpp"

#include <functional>

namespace engine {

/// A matrix of floats with memory of its own.
class float_buffer {
public:
  float_buffer(std::size_t rows, std::size_t cols)
      : data_{rows * cols, sinq::aligned_buffer<float>::uninitialized}, rows_{rows}, cols_{cols} {}
  operator sinq::matrix_view<float>() { return {data_.data(), rows_, cols_}; }
  operator sinq::matrix_view<const float>() const { return {data_.data(), rows_, cols_}; }

private:
  sinq::aligned_buffer<float> data_;
  std::size_t rows_, cols_;
};

/// to = gain x / sqrt(mean(x^2) + eps) for each row
void normalize_rows(sinq::matrix_view<const float> x, std::span<const float> gain, double eps,
                    sinq::matrix_view<float> to, sinq::executor& threads);

/// Whose inputs an observer is shown: q, k and v share theirs, gate and up too.
enum class layer_input { attention, output, feed_forward, down };
/// Is shown the inputs of linear layers, [tokens x K], before they are multiplied.
using input_observer = std::function<void(layer_input, sinq::matrix_view<const float>)>;

/// Runs single layers of a decoder for as many tokens of as many sequences, all at the same position.
class decoder {
public:
  /// @param begin   position of each sequence's first token. @param tokens  of each sequence
  decoder(const model_config& config, const compute& with, std::size_t sequences, std::size_t begin,
          std::size_t tokens);

  /// x += attention(x), x += feed_forward(x). Stores keys and values, and leaves the sizes of the caches as they are.
  /// @param x       [sequences tokens x hidden], one sequence after the other
  /// @param caches  [sequences], each of `begin` tokens. @param layer  of the caches
  /// @errors        those of matmul
  [[nodiscard]] sinq::result<void> operator()(const layer_weights& w, std::size_t layer, std::span<kv_cache> caches,
                                              sinq::matrix_view<float> x, const input_observer& observe = {});

  /// The layer's halves.
  [[nodiscard]] sinq::result<void> attend(const layer_weights& w, std::size_t layer, std::span<kv_cache> caches,
                                          sinq::matrix_view<float> x, const input_observer& observe = {});
  [[nodiscard]] sinq::result<void> feed_forward(const layer_weights& w, sinq::matrix_view<float> x,
                                                const input_observer& observe = {});

private:
  const model_config& c_;
  const compute& with_;
  std::size_t tokens_;
  attention attention_;
  float_buffer h_, q_, k_, v_, mixed_, gate_, up_;
};

} // namespace engine
