#include "attention.hpp"

#include "activation.hpp"
#include "rows.hpp"

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

std::size_t kv_cache::offset(std::size_t layer, std::size_t head, part of) const {
  return ((layer * heads_ + head) * 2 + (of == part::key ? 0 : 1)) * capacity_ * head_dim_ * size_bytes(type_);
}

void kv_cache::store(std::size_t layer, std::size_t head, std::size_t position, std::span<const float> key,
                     std::span<const float> value) {
  SINQ_ASSERT(position < capacity_ && key.size() == head_dim_ && value.size() == head_dim_);
  const std::size_t element = size_bytes(type_);
  sinq::store_floats(key, type_, data_.data() + offset(layer, head, part::key) + position * head_dim_ * element);
  std::array<sinq::byte, 64 * sizeof(float)> some;
  sinq::byte* to = data_.data() + offset(layer, head, part::value) + position * element;
  for (std::size_t k = 0; k < head_dim_; k += 64) {
    const std::size_t count = std::min<std::size_t>(64, head_dim_ - k);
    sinq::store_floats(value.subspan(k, count), type_, some.data());
    for (std::size_t n = 0; n < count; ++n, to += capacity_ * element)
      std::memcpy(to, some.data() + n * element, element);
  }
}

sinq::weight_view kv_cache::keys(std::size_t layer, std::size_t head, std::size_t n) const {
  return {data_.data() + offset(layer, head, part::key), type_, n, head_dim_};
}

sinq::weight_view kv_cache::values(std::size_t layer, std::size_t head, std::size_t n) const {
  return {data_.data() + offset(layer, head, part::value), type_, head_dim_, n, capacity_ * size_bytes(type_)};
}

attention::attention(const model_config& config, const compute& with, std::size_t begin, std::size_t tokens)
    : c_{config}, with_{with}, cosine_(tokens * config.head_dim / 2), sine_(cosine_.size()) {
  const std::vector<double> frequencies = rope_frequencies(config);
  for (std::size_t n = 0; n < cosine_.size(); ++n) {
    const double position = static_cast<double>(begin + n / frequencies.size());
    const double angle = position * frequencies[n % frequencies.size()];
    cosine_[n] = static_cast<float>(std::cos(angle));
    sine_[n] = static_cast<float>(std::sin(angle));
  }
}

void attention::rotate(sinq::matrix_view<float> x) const {
  const std::size_t half = c_.head_dim / 2;
  for_rows(*with_.threads, x.rows(), [&](std::size_t m) {
    const float* const cosine = cosine_.data() + m * half;
    const float* const sine = sine_.data() + m * half;
    for (float* head = x.row(m).data(); head != x.row(m).data() + x.cols(); head += c_.head_dim)
      for (std::size_t k = 0; k < half; ++k) {
        const float a = head[k], b = head[k + half];
        head[k] = a * cosine[k] - b * sine[k];
        head[k + half] = b * cosine[k] + a * sine[k];
      }
  });
}

sinq::result<void> attention::operator()(std::size_t layer, sinq::matrix_view<const float> q,
                                         sinq::matrix_view<const float> k, sinq::matrix_view<const float> v,
                                         kv_cache& cache, sinq::matrix_view<float> y) const {
  const std::size_t tokens = q.rows();
  SINQ_ASSERT(cache.size() + tokens <= cache.capacity());
  for_rows(*with_.threads, tokens, [&](std::size_t m) {
    for (std::size_t head = 0; head < c_.kv_heads; ++head)
      cache.store(layer, head, cache.size() + m, k.row(m).subspan(head * c_.head_dim, c_.head_dim),
                  v.row(m).subspan(head * c_.head_dim, c_.head_dim));
  });
  constexpr std::size_t tokens_at_once = 64;
  const std::size_t blocks = (tokens + tokens_at_once - 1) / tokens_at_once;
  const auto some = [&](std::size_t task, std::size_t) {
    const std::size_t begin = task / c_.kv_heads * tokens_at_once;
    return attend(layer, task % c_.kv_heads, begin, std::min(tokens, begin + tokens_at_once), q, cache, y);
  };
  return sinq::parallel_for(*with_.threads, blocks * c_.kv_heads, 1, some);
}

/// Tokens [begin, end) of one key-value head, for all heads of q that share it.
sinq::result<void> attention::attend(std::size_t layer, std::size_t head, std::size_t begin, std::size_t end,
                                     sinq::matrix_view<const float> q, const kv_cache& cache,
                                     sinq::matrix_view<float> y) const {
  const std::size_t d = c_.head_dim, group = c_.heads / c_.kv_heads, rows = (end - begin) * group;
  const std::size_t seen = cache.size() + end;
  std::vector<float> query(rows * d), score(rows * seen);
  const sinq::matrix_view<float> queries{query.data(), rows, d}, scores{score.data(), rows, seen};
  const float unit = 1 / std::sqrt(static_cast<float>(d));
  for (std::size_t r = 0; r < rows; ++r) {
    const float* const from = q.row(begin + r / group).data() + (head * group + r % group) * d;
    for (std::size_t k = 0; k < d; ++k) queries(r, k) = from[k] * unit;
  }
  sinq::serial_executor here;
  const sinq::matmul_options alone{.threads = &here};
  if (auto ok = sinq::matmul(cache.keys(layer, head, seen), queries, scores, alone); !ok) return ok;
  for (std::size_t r = 0; r < rows; ++r) {
    const std::size_t last = cache.size() + begin + r / group;
    const std::size_t first = c_.window != 0 && last >= c_.window ? last - c_.window + 1 : 0;
    const std::span<float> row = scores.row(r);
    std::fill_n(row.begin(), first, 0.0f); // which the token does not see
    softmax(row.subspan(first, last + 1 - first));
    std::fill(row.begin() + static_cast<std::ptrdiff_t>(last + 1), row.end(), 0.0f);
  }
  if (auto ok = sinq::matmul(cache.values(layer, head, seen), scores, queries, alone); !ok) return ok;
  for (std::size_t r = 0; r < rows; ++r)
    std::copy_n(queries.row(r).data(), d, y.row(begin + r / group).data() + (head * group + r % group) * d);
  return {};
}

} // namespace engine
