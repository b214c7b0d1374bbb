#include "attention.hpp"

#include "blas.hpp"

#include <cmath>

namespace engine {

kv_cache::kv_cache(const model_config& config, std::size_t capacity, sinq::dtype type)
    : capacity_{capacity}, heads_{config.kv_heads}, head_dim_{config.head_dim}, type_{type},
      data_{config.layers * 2 * heads_ * capacity * head_dim_ * size_bytes(type),
            sinq::aligned_buffer<sinq::byte>::uninitialized} {
  SINQ_ASSERT(type == sinq::dtype::f32 || type == sinq::dtype::f16);
}

void kv_cache::resize(std::size_t size) {
  SINQ_ASSERT(size <= capacity_);
  size_ = size;
}

std::size_t kv_cache::offset(part of, std::size_t layer, std::size_t head, std::size_t position) const {
  const std::size_t matrix = (layer * 2 + (of == part::key ? 0 : 1)) * heads_ + head;
  return (matrix * capacity_ + position) * head_dim_ * size_bytes(type_);
}

void kv_cache::store(part of, std::size_t layer, std::size_t head, std::size_t position,
                     std::span<const float> values) {
  SINQ_ASSERT(position < capacity_ && values.size() == head_dim_);
  sinq::store_floats(values, type_, data_.data() + offset(of, layer, head, position));
}

sinq::matrix_view<const float> kv_cache::rows(part of, std::size_t layer, std::size_t head, std::size_t n,
                                              std::vector<float>& scratch) const {
  const sinq::byte* const from = data_.data() + offset(of, layer, head, 0);
  if (type_ == sinq::dtype::f32) return {reinterpret_cast<const float*>(from), n, head_dim_};
  scratch.resize(n * head_dim_);
  sinq::load_floats(from, type_, scratch);
  return {scratch.data(), n, head_dim_};
}

void attention::rotate(sinq::matrix_view<float> x, std::size_t begin) const {
  const std::size_t half = c_.head_dim / 2;
  std::vector<float> cosine(half), sine(half);
  for (std::size_t m = 0; m < x.rows(); ++m) {
    for (std::size_t k = 0; k < half; ++k) {
      const double angle = static_cast<double>(begin + m) * frequencies_[k];
      cosine[k] = static_cast<float>(std::cos(angle));
      sine[k] = static_cast<float>(std::sin(angle));
    }
    for (float* head = x.row(m).data(); head != x.row(m).data() + x.cols(); head += c_.head_dim)
      for (std::size_t k = 0; k < half; ++k) {
        const float a = head[k], b = head[k + half];
        head[k] = a * cosine[k] - b * sine[k];
        head[k + half] = b * cosine[k] + a * sine[k];
      }
  }
}

void attention::operator()(std::size_t layer, sinq::matrix_view<const float> q, sinq::matrix_view<const float> k,
                           sinq::matrix_view<const float> v, kv_cache& cache, sinq::matrix_view<float> y) const {
  const std::size_t tokens = q.rows();
  SINQ_ASSERT(cache.size() + tokens <= cache.capacity());
  for (std::size_t head = 0; head < c_.kv_heads; ++head)
    for (std::size_t m = 0; m < tokens; ++m) {
      const std::size_t at = cache.size() + m;
      cache.store(kv_cache::part::key, layer, head, at, k.row(m).subspan(head * c_.head_dim, c_.head_dim));
      cache.store(kv_cache::part::value, layer, head, at, v.row(m).subspan(head * c_.head_dim, c_.head_dim));
    }
  constexpr std::size_t tokens_at_once = 64;
  const std::size_t blocks = (tokens + tokens_at_once - 1) / tokens_at_once;
  with_.threads->run(blocks * c_.kv_heads, [&](std::size_t task) {
    const std::size_t begin = task / c_.kv_heads * tokens_at_once;
    attend(layer, task % c_.kv_heads, begin, std::min(tokens, begin + tokens_at_once), q, cache, y);
  });
}

/// Tokens [begin, end) of one key-value head, for all heads of q that share it.
void attention::attend(std::size_t layer, std::size_t head, std::size_t begin, std::size_t end,
                       sinq::matrix_view<const float> q, const kv_cache& cache, sinq::matrix_view<float> y) const {
  const std::size_t d = c_.head_dim, group = c_.heads / c_.kv_heads, rows = (end - begin) * group;
  const std::size_t seen = cache.size() + end;
  std::vector<float> query(rows * d), score(rows * seen), key_scratch, value_scratch;
  const float unit = 1 / std::sqrt(static_cast<float>(d));
  for (std::size_t r = 0; r < rows; ++r) {
    const float* const from = q.row(begin + r / group).data() + (head * group + r % group) * d;
    for (std::size_t k = 0; k < d; ++k) query[r * d + k] = from[k] * unit;
  }
  const sinq::matrix_view<float> scores{score.data(), rows, seen};
  multiply_transposed(sinq::matrix_view<const float>{query.data(), rows, d},
                      cache.rows(kv_cache::part::key, layer, head, seen, key_scratch), scores);
  for (std::size_t r = 0; r < rows; ++r) {
    const std::size_t last = cache.size() + begin + r / group;
    const std::size_t first = c_.window != 0 && last >= c_.window ? last - c_.window + 1 : 0;
    Eigen::Map<Eigen::ArrayXf> all{scores.row(r).data(), static_cast<Eigen::Index>(seen)};
    auto visible = all.segment(static_cast<Eigen::Index>(first), static_cast<Eigen::Index>(last - first + 1));
    visible = (visible - visible.maxCoeff()).exp();
    visible /= visible.sum();
    all.head(static_cast<Eigen::Index>(first)) = 0;
    all.tail(static_cast<Eigen::Index>(seen - 1 - last)) = 0;
  }
  const sinq::matrix_view<float> out{query.data(), rows, d};
  multiply(scores, cache.rows(kv_cache::part::value, layer, head, seen, value_scratch), out);
  for (std::size_t r = 0; r < rows; ++r)
    std::copy_n(out.row(r).data(), d, y.row(begin + r / group).data() + (head * group + r % group) * d);
}

} // namespace engine
