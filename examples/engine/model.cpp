#include "model.hpp"

namespace engine {
namespace {

using sinq::matrix_view;
using sinq::result;

/// A matrix of floats with memory of its own.
class matrix {
public:
  matrix(std::size_t rows, std::size_t cols)
      : data_{rows * cols, sinq::aligned_buffer<float>::uninitialized}, rows_{rows}, cols_{cols} {}
  operator matrix_view<float>() { return {data_.data(), rows_, cols_}; }
  operator matrix_view<const float>() const { return {data_.data(), rows_, cols_}; }

private:
  sinq::aligned_buffer<float> data_;
  std::size_t rows_, cols_;
};

Eigen::Map<const Eigen::RowVectorXf> as_vector(std::span<const float> values) {
  return {values.data(), static_cast<Eigen::Index>(values.size())};
}
Eigen::Map<Eigen::RowVectorXf> as_vector(std::span<float> values) {
  return {values.data(), static_cast<Eigen::Index>(values.size())};
}

/// to = gain x / sqrt(mean(x^2) + eps)
void normalize(std::span<const float> x, std::span<const float> gain, double eps, std::span<float> to) {
  const auto from = as_vector(x);
  const float mean = from.squaredNorm() / static_cast<float>(x.size());
  as_vector(to) = from.cwiseProduct(as_vector(gain)) / std::sqrt(mean + static_cast<float>(eps));
}

/// One forward pass of a chunk of tokens.
class pass {
public:
  pass(const model_config& c, const model_weights& w, const compute& with, kv_cache& cache, std::size_t tokens)
      : c_{c}, w_{w}, with_{with}, attention_{c, with, cache.size(), tokens}, cache_{cache}, x_{tokens, c.hidden},
        h_{tokens, c.hidden}, q_{tokens, c.heads * c.head_dim}, k_{tokens, c.kv_heads * c.head_dim}, v_{tokens,
                                                                                                        c.kv_heads *
                                                                                                            c.head_dim},
        mixed_{tokens, c.heads * c.head_dim}, gate_{tokens, c.intermediate}, up_{tokens, c.intermediate} {}

  [[nodiscard]] result<void> operator()(std::span<const int> tokens, matrix_view<float> logits) {
    const matrix_view<float> x = x_;
    for (std::size_t m = 0; m < tokens.size(); ++m) w_.embedding.load(static_cast<std::size_t>(tokens[m]), x.row(m));
    for (std::size_t n = 0; n < w_.layers.size(); ++n) {
      if (auto ok = attend(n); !ok) return ok;
      if (auto ok = feed_forward(w_.layers[n]); !ok) return ok;
    }
    cache_.resize(cache_.size() + tokens.size());
    if (logits.rows() == 0) return {};
    const matrix_view<float> last = x.block(x.rows() - logits.rows(), 0, logits.rows(), x.cols());
    matrix normal{last.rows(), last.cols()};
    normalize_rows(last, w_.norm, normal);
    return w_.output(normal, logits, with_);
  }

private:
  void normalize_rows(matrix_view<const float> x, std::span<const float> gain, matrix_view<float> to) const {
    for (std::size_t m = 0; m < x.rows(); ++m) normalize(x.row(m), gain, c_.norm_eps, to.row(m));
  }
  void normalize_heads(matrix_view<float> x, std::span<const float> gain) const {
    if (gain.empty()) return;
    for (std::size_t m = 0; m < x.rows(); ++m)
      for (std::size_t j = 0; j < x.cols(); j += c_.head_dim) {
        const std::span<float> head = x.row(m).subspan(j, c_.head_dim);
        normalize(head, gain, c_.norm_eps, head);
      }
  }

  /// x += o(attention(q(h), k(h), v(h))), h = norm(x)
  [[nodiscard]] result<void> attend(std::size_t n) {
    const layer_weights& w = w_.layers[n];
    normalize_rows(x_, w.attention_norm, h_);
    if (auto ok = w.q(h_, q_, with_); !ok) return ok;
    if (auto ok = w.k(h_, k_, with_); !ok) return ok;
    if (auto ok = w.v(h_, v_, with_); !ok) return ok;
    normalize_heads(q_, w.q_norm);
    normalize_heads(k_, w.k_norm);
    attention_.rotate(q_);
    attention_.rotate(k_);
    if (auto ok = attention_(n, q_, k_, v_, cache_, mixed_); !ok) return ok;
    if (auto ok = w.o(mixed_, h_, with_); !ok) return ok;
    add(h_);
    return {};
  }

  /// x += down(silu(gate(h)) up(h)), h = norm(x), silu(v) = v / (1 + e^-v)
  [[nodiscard]] result<void> feed_forward(const layer_weights& w) {
    normalize_rows(x_, w.mlp_norm, h_);
    if (auto ok = w.gate(h_, gate_, with_); !ok) return ok;
    if (auto ok = w.up(h_, up_, with_); !ok) return ok;
    const matrix_view<float> gates = gate_, ups = up_;
    constexpr std::size_t tokens_at_once = 8;
    const auto some = [&](std::size_t begin, std::size_t end) -> result<void> {
      for (std::size_t m = begin; m < end; ++m) {
        auto gate = as_vector(gates.row(m)).array();
        gate = gate / (1 + (-gate).exp()) * as_vector(ups.row(m)).array();
      }
      return {};
    };
    if (auto ok = sinq::parallel_for(*with_.threads, gates.rows(), tokens_at_once, some); !ok) return ok;
    if (auto ok = w.down(gate_, h_, with_); !ok) return ok;
    add(h_);
    return {};
  }

  void add(matrix_view<const float> h) {
    const matrix_view<float> x = x_;
    x.eigen() += h.eigen();
  }

  const model_config& c_;
  const model_weights& w_;
  const compute& with_;
  attention attention_;
  kv_cache& cache_;
  matrix x_, h_, q_, k_, v_, mixed_, gate_, up_;
};

} // namespace

result<model> model::open(const std::filesystem::path& directory, const compute& with,
                          const layer_quantizer& quantize) {
  auto config = read_config(directory);
  if (!config) return std::move(config).error();
  const auto checkpoint = sinq::io::checkpoint::open(directory);
  if (!checkpoint) return checkpoint.error();
  auto weights = load_weights(*checkpoint, *config, quantize, {.threads = with.threads, .progress = {}});
  if (!weights) return std::move(weights).error().in(directory.string());
  return model{*std::move(config), *std::move(weights), with};
}

result<void> model::forward(std::span<const int> tokens, kv_cache& cache, matrix_view<float> logits) const {
  SINQ_ASSERT(logits.rows() <= tokens.size() && (logits.rows() == 0 || logits.cols() == config_.vocabulary));
  for (const int token : tokens)
    if (token < 0 || static_cast<std::size_t>(token) >= config_.vocabulary)
      return sinq::make_error(sinq::errc::invalid_argument, "token ", token, " is not in the vocabulary of ",
                              config_.vocabulary);
  if (tokens.size() > cache.capacity() - cache.size())
    return sinq::make_error(sinq::errc::invalid_argument, tokens.size(), " tokens after ", cache.size(),
                            " do not fit into a context of ", cache.capacity());
  constexpr std::size_t tokens_at_once = 512;
  const std::size_t before = cache.size(), silent = tokens.size() - logits.rows();
  for (std::size_t begin = 0; begin < tokens.size(); begin += tokens_at_once) {
    const std::size_t end = std::min(tokens.size(), begin + tokens_at_once);
    const std::size_t first = std::max(begin, silent); // the first of the chunk whose logits are asked for
    const matrix_view<float> out =
        first < end ? logits.block(first - silent, 0, end - first, logits.cols()) : matrix_view<float>{};
    pass run{config_, weights_, with_, cache, end - begin};
    if (auto ok = run(tokens.subspan(begin, end - begin), out); !ok) {
      cache.resize(before);
      return ok;
    }
  }
  return {};
}

} // namespace engine
