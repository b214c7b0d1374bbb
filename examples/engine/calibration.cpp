#include "calibration.hpp"

#include "sampler.hpp"

#include <sinq/kernels/float_matmul.hpp>

#include <array>

namespace engine {
namespace {

using sinq::matrix_view;
using sinq::result;

/// Sums over the inputs that some linear layers share.
class input_sums {
public:
  input_sums(std::size_t cols, bool full, sinq::executor& threads)
      : squares_{Eigen::RowVectorXd::Zero(static_cast<Eigen::Index>(cols))}, sizes_{squares_}, threads_{threads} {
    if (full) products_.setZero(squares_.size(), squares_.size());
  }

  [[nodiscard]] result<void> add(matrix_view<const float> x) {
    const auto values = x.eigen().cast<double>();
    squares_ += values.cwiseAbs2().colwise().sum();
    sizes_ += values.cwiseAbs().colwise().sum();
    tokens_ += x.rows();
    if (products_.size() == 0) return {};
    sinq::input_moments::row_major columns = x.eigen().transpose();
    sinq::input_moments::row_major products{squares_.size(), squares_.size()};
    const matrix_view<const float> all = matrix_view<float>{columns};
    if (auto ok = sinq::matmul(sinq::weight_view{all}, all, matrix_view<float>{products}, {.threads = &threads_}); !ok)
      return ok;
    products_ += products.cast<double>();
    return {};
  }

  [[nodiscard]] sinq::input_moments means() const {
    const double count = static_cast<double>(tokens_);
    sinq::input_moments m;
    for (Eigen::Index j = 0; j < squares_.size(); ++j) {
      m.second_moment.push_back(static_cast<float>(squares_[j] / count));
      m.mean_abs.push_back(static_cast<float>(sizes_[j] / count));
    }
    m.hessian = (products_ / count).cast<float>();
    return m;
  }

private:
  Eigen::RowVectorXd squares_, sizes_;
  Eigen::MatrixXd products_;
  std::size_t tokens_ = 0;
  sinq::executor& threads_;
};

/// The linear layers that share an input, by their names inside a decoder layer.
struct sharing {
  layer_input input;
  std::vector<const char*> names;
};
const std::array<sharing, 4> shared_inputs{
    {{layer_input::attention, {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}},
     {layer_input::output, {"self_attn.o_proj"}},
     {layer_input::feed_forward, {"mlp.gate_proj", "mlp.up_proj"}},
     {layer_input::down, {"mlp.down_proj"}}}};

std::size_t cols_of(const model_config& c, layer_input input) {
  if (input == layer_input::output) return c.heads * c.head_dim;
  return input == layer_input::down ? c.intermediate : c.hidden;
}

} // namespace

result<void> calibrate(const model& m, std::span<const std::vector<int>> windows, bool full, const moments_sink& sink,
                       const sinq::progress_callback& progress) {
  const model_config& c = m.config();
  const std::size_t length = windows.front().size();
  std::vector<float_buffer> states;
  for (const std::vector<int>& window : windows) {
    if (auto ok = m.check(window); !ok) return ok;
    m.embed(window, states.emplace_back(length, c.hidden));
  }
  model_config of_one_layer = c;
  of_one_layer.layers = 1;
  kv_cache cache{of_one_layer, length, sinq::dtype::f32};
  decoder layer{c, m.with(), 1, 0, length};
  for (std::size_t n = 0; n < c.layers; ++n) {
    std::vector<input_sums> sums;
    for (const sharing& shared : shared_inputs) sums.emplace_back(cols_of(c, shared.input), full, *m.with().threads);
    result<void> added;
    const auto add = [&](layer_input input, matrix_view<const float> x) {
      if (added) added = sums[static_cast<std::size_t>(input)].add(x);
    };
    for (float_buffer& x : states)
      if (auto ok = layer(m.weights().layers[n], 0, {&cache, 1}, x, add); !ok) return ok;
    if (!added) return added;
    for (const sharing& shared : shared_inputs) {
      const sinq::input_moments means = sums[static_cast<std::size_t>(shared.input)].means();
      for (const char* const name : shared.names)
        if (auto ok = sink("model.layers." + std::to_string(n) + "." + name, means); !ok) return ok;
    }
    if (progress && !progress(static_cast<double>(n + 1) / static_cast<double>(c.layers)))
      return sinq::make_error(sinq::errc::cancelled, "cancelled by the progress callback");
  }
  return {};
}

result<std::vector<std::vector<int>>> own_texts(const model& m, std::span<const int> first, std::size_t length,
                                                std::uint64_t seed, const sinq::progress_callback& progress) {
  const std::size_t count = first.size(), vocabulary = m.config().vocabulary;
  std::vector<std::vector<int>> texts;
  std::vector<kv_cache> caches;
  std::vector<sampler> samplers;
  for (std::size_t s = 0; s < count; ++s) {
    texts.push_back({first[s]});
    caches.emplace_back(m.config(), length);
    samplers.emplace_back(sampling{.temperature = 1, .seed = seed + s});
  }
  std::vector<int> next(first.begin(), first.end());
  float_buffer memory{count, vocabulary};
  const matrix_view<float> logits = memory;
  for (std::size_t n = 1; n < length; ++n) {
    if (auto ok = m.step(next, caches, logits); !ok) return std::move(ok).error();
    m.with().threads->run(count, [&](std::size_t s) { next[s] = samplers[s](logits.row(s)); });
    for (std::size_t s = 0; s < count; ++s) texts[s].push_back(next[s]);
    if (progress && !progress(static_cast<double>(n + 1) / static_cast<double>(length)))
      return sinq::make_error(sinq::errc::cancelled, "cancelled by the progress callback");
  }
  return texts;
}

} // namespace engine
