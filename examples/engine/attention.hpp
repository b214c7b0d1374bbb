#pragma once

#include "config.hpp"
#include "linear.hpp"

namespace engine {

/// Keys and values of the tokens so far, as f32 or f16: of each layer and key-value head [capacity x head_dim] keys and
/// [head_dim x capacity] values.
class kv_cache {
public:
  /// @param capacity  tokens that fit. @param type  dtype::f32 or dtype::f16
  kv_cache(const model_config& config, std::size_t capacity, sinq::dtype type = sinq::dtype::f16);

  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::size_t capacity() const { return capacity_; }
  /// Counts tokens whose keys and values are in all layers, or forgets all but the first. @pre size <= capacity()
  void resize(std::size_t size);

  /// Stores the key and the value of a token, [head_dim] each. @pre position < capacity()
  void store(std::size_t layer, std::size_t head, std::size_t position, std::span<const float> key,
             std::span<const float> value);
  /// Keys of the first n tokens, [n x head_dim].
  [[nodiscard]] sinq::weight_view keys(std::size_t layer, std::size_t head, std::size_t n) const;
  /// Values of the first n tokens, transposed, [head_dim x n]: what weights of tokens are multiplied by.
  [[nodiscard]] sinq::weight_view values(std::size_t layer, std::size_t head, std::size_t n) const;

private:
  enum class part { key, value };
  [[nodiscard]] std::size_t offset(std::size_t layer, std::size_t head, part of) const;

  std::size_t capacity_, heads_, head_dim_, size_ = 0;
  sinq::dtype type_;
  sinq::aligned_buffer<sinq::byte> data_;
};

/// Causal attention of one chunk of tokens, grouped queries included:
///   y_i = sum_j softmax_j(q_i k_j / sqrt(d)) v_j,   j = max(0, i - window + 1) .. i
class attention {
public:
  /// Of tokens at positions `begin`, `begin` + 1, ..
  attention(const model_config& config, const compute& with, std::size_t begin, std::size_t tokens);

  /// Rotates each head's pairs (k, k + d / 2) by position times frequency k.
  /// @param x  [tokens x heads d]
  void rotate(sinq::matrix_view<float> x) const;

  /// Appends k and v to a layer's cache at positions cache.size() .., which does not change cache.size().
  /// @param q     [tokens x heads d], rotated. @param k, v  [tokens x kv_heads d], k rotated
  /// @param y     [tokens x heads d]
  [[nodiscard]] sinq::result<void> operator()(std::size_t layer, sinq::matrix_view<const float> q,
                                              sinq::matrix_view<const float> k, sinq::matrix_view<const float> v,
                                              kv_cache& cache, sinq::matrix_view<float> y) const;

private:
  [[nodiscard]] sinq::result<void> attend(std::size_t layer, std::size_t head, std::size_t begin, std::size_t end,
                                          sinq::matrix_view<const float> q, const kv_cache& cache,
                                          sinq::matrix_view<float> y) const;

  const model_config& c_;
  const compute& with_;
  std::vector<float> cosine_, sine_; ///< [tokens x d / 2]
};

} // namespace engine
