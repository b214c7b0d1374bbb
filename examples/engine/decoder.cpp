#include "decoder.hpp"

#include "activation.hpp"
#include "rows.hpp"

namespace engine {
namespace {

using sinq::matrix_view;
using sinq::result;

Eigen::Map<const Eigen::RowVectorXf> as_vector(std::span<const float> values) {
  return {values.data(), static_cast<Eigen::Index>(values.size())};
}
Eigen::Map<Eigen::RowVectorXf> as_vector(std::span<float> values) {
  return {values.data(), static_cast<Eigen::Index>(values.size())};
}

void normalize(std::span<const float> x, std::span<const float> gain, double eps, std::span<float> to) {
  const auto from = as_vector(x);
  const float mean = from.squaredNorm() / static_cast<float>(x.size());
  as_vector(to) = from.cwiseProduct(as_vector(gain)) / std::sqrt(mean + static_cast<float>(eps));
}

void normalize_heads(matrix_view<float> x, std::span<const float> gain, double eps, sinq::executor& threads) {
  if (gain.empty()) return;
  for_rows(threads, x.rows(), [&](std::size_t m) {
    for (std::size_t j = 0; j < x.cols(); j += gain.size()) {
      const std::span<float> head = x.row(m).subspan(j, gain.size());
      normalize(head, gain, eps, head);
    }
  });
}

void add(matrix_view<const float> h, matrix_view<float> to, sinq::executor& threads) {
  for_rows(threads, to.rows(), [&](std::size_t m) { as_vector(to.row(m)) += as_vector(h.row(m)); });
}

/// Rows [begin, begin + count).
template <class T>
matrix_view<T> rows_of(matrix_view<T> x, std::size_t begin, std::size_t count) {
  return x.block(begin, 0, count, x.cols());
}

} // namespace

void normalize_rows(matrix_view<const float> x, std::span<const float> gain, double eps, matrix_view<float> to,
                    sinq::executor& threads) {
  for_rows(threads, x.rows(), [&](std::size_t m) { normalize(x.row(m), gain, eps, to.row(m)); });
}

decoder::decoder(const model_config& c, const compute& with, std::size_t sequences, std::size_t begin,
                 std::size_t tokens)
    : c_{c}, with_{with}, tokens_{tokens}, attention_{c, with, begin, tokens}, h_{sequences * tokens, c.hidden},
      q_{sequences * tokens, c.heads * c.head_dim}, k_{sequences * tokens, c.kv_heads * c.head_dim},
      v_{sequences * tokens, c.kv_heads * c.head_dim}, mixed_{sequences * tokens, c.heads * c.head_dim},
      gate_{sequences * tokens, c.intermediate}, up_{sequences * tokens, c.intermediate} {}

result<void> decoder::operator()(const layer_weights& w, std::size_t layer, std::span<kv_cache> caches,
                                 matrix_view<float> x, const input_observer& observe) {
  if (auto ok = attend(w, layer, caches, x, observe); !ok) return ok;
  return feed_forward(w, x, observe);
}

/// x += o(attention(q(h), k(h), v(h))), h = norm(x)
result<void> decoder::attend(const layer_weights& w, std::size_t layer, std::span<kv_cache> caches,
                             matrix_view<float> x, const input_observer& observe) {
  const matrix_view<float> q = q_, k = k_, v = v_, mixed = mixed_;
  normalize_rows(x, w.attention_norm, c_.norm_eps, h_, *with_.threads);
  if (observe) observe(layer_input::attention, h_);
  if (auto ok = w.q(h_, q, with_); !ok) return ok;
  if (auto ok = w.k(h_, k, with_); !ok) return ok;
  if (auto ok = w.v(h_, v, with_); !ok) return ok;
  normalize_heads(q, w.q_norm, c_.norm_eps, *with_.threads);
  normalize_heads(k, w.k_norm, c_.norm_eps, *with_.threads);
  for (std::size_t s = 0; s < caches.size(); ++s) {
    const std::size_t m = s * tokens_;
    attention_.rotate(rows_of(q, m, tokens_));
    attention_.rotate(rows_of(k, m, tokens_));
    if (auto ok = attention_(layer, rows_of(q, m, tokens_), rows_of(k, m, tokens_), rows_of(v, m, tokens_), caches[s],
                             rows_of(mixed, m, tokens_));
        !ok)
      return ok;
  }
  if (observe) observe(layer_input::output, mixed_);
  if (auto ok = w.o(mixed_, h_, with_); !ok) return ok;
  add(h_, x, *with_.threads);
  return {};
}

/// x += down(silu(gate(h)) up(h)), h = norm(x), silu(v) = v / (1 + e^-v)
result<void> decoder::feed_forward(const layer_weights& w, matrix_view<float> x, const input_observer& observe) {
  normalize_rows(x, w.mlp_norm, c_.norm_eps, h_, *with_.threads);
  if (observe) observe(layer_input::feed_forward, h_);
  if (auto ok = w.gate(h_, gate_, with_); !ok) return ok;
  if (auto ok = w.up(h_, up_, with_); !ok) return ok;
  const matrix_view<float> gates = gate_, ups = up_;
  for_rows(*with_.threads, gates.rows(), [&](std::size_t m) { gate_with_silu(gates.row(m), ups.row(m)); });
  if (observe) observe(layer_input::down, gate_);
  if (auto ok = w.down(gate_, h_, with_); !ok) return ok;
  add(h_, x, *with_.threads);
  return {};
}

} // namespace engine
