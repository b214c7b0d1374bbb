#include "model.hpp"

#include <algorithm>

namespace engine {
namespace {

using sinq::matrix_view;
using sinq::result;

/// Tokens of all sequences that go through the layers together, at most.
constexpr std::size_t tokens_at_once = 512;

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

result<void> model::check(std::span<const int> tokens) const {
  for (const int token : tokens)
    if (token < 0 || static_cast<std::size_t>(token) >= config_.vocabulary)
      return sinq::make_error(sinq::errc::invalid_argument, "token ", token, " is not in the vocabulary of ",
                              config_.vocabulary);
  return {};
}

result<void> model::check_room(std::span<const int> tokens, std::span<const kv_cache> caches) const {
  if (auto ok = check(tokens); !ok) return ok;
  const std::size_t each = tokens.size() / caches.size();
  for (const kv_cache& cache : caches)
    if (each > cache.capacity() - cache.size())
      return sinq::make_error(sinq::errc::invalid_argument, each, " tokens after ", cache.size(),
                              " do not fit into a context of ", cache.capacity());
  return {};
}

void model::embed(std::span<const int> tokens, matrix_view<float> x) const {
  for (std::size_t m = 0; m < tokens.size(); ++m)
    weights_.embedding.load(static_cast<std::size_t>(tokens[m]), x.row(m));
}

result<void> model::run(std::span<const int> tokens, std::span<kv_cache> caches, matrix_view<float> x) const {
  embed(tokens, x);
  const std::size_t each = tokens.size() / caches.size();
  decoder layers{config_, with_, caches.size(), caches.front().size(), each};
  for (std::size_t n = 0; n < weights_.layers.size(); ++n)
    if (auto ok = layers(weights_.layers[n], n, caches, x); !ok) return ok;
  for (kv_cache& cache : caches) cache.resize(cache.size() + each);
  return {};
}

result<void> model::output(matrix_view<const float> x, matrix_view<float> logits) const {
  float_buffer normal{x.rows(), x.cols()};
  normalize_rows(x, weights_.norm, config_.norm_eps, normal, *with_.threads);
  return weights_.output(normal, logits, with_);
}

result<void> model::forward(std::span<const int> tokens, kv_cache& cache, matrix_view<float> logits) const {
  SINQ_ASSERT(logits.rows() <= tokens.size() && (logits.rows() == 0 || logits.cols() == config_.vocabulary));
  if (auto ok = check_room(tokens, {&cache, 1}); !ok) return ok;
  const std::size_t before = cache.size(), silent = tokens.size() - logits.rows();
  for (std::size_t begin = 0; begin < tokens.size(); begin += tokens_at_once) {
    const std::size_t end = std::min(tokens.size(), begin + tokens_at_once);
    float_buffer memory{end - begin, config_.hidden};
    const matrix_view<float> x = memory;
    auto ok = run(tokens.subspan(begin, end - begin), {&cache, 1}, x);
    const std::size_t first = std::max(begin, silent); // the first of the chunk whose logits are asked for
    if (ok && first < end)
      ok = output(x.block(first - begin, 0, end - first, x.cols()),
                  logits.block(first - silent, 0, end - first, logits.cols()));
    if (!ok) {
      cache.resize(before);
      return ok;
    }
  }
  return {};
}

result<void> model::step(std::span<const int> tokens, std::span<kv_cache> caches, matrix_view<float> logits) const {
  SINQ_ASSERT(tokens.size() == caches.size() && logits.rows() == tokens.size() && logits.cols() == config_.vocabulary);
  SINQ_ASSERT(std::all_of(caches.begin(), caches.end(),
                          [&](const kv_cache& cache) { return cache.size() == caches.front().size(); }));
  if (auto ok = check_room(tokens, caches); !ok) return ok;
  float_buffer x{tokens.size(), config_.hidden};
  if (auto ok = run(tokens, caches, x); !ok) return ok;
  return output(x, logits);
}

} // namespace engine
