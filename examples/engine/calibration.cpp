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

/// The linear layers that share an input.
struct sharing {
  struct member {
    const char* name; ///< inside a decoder layer
    linear layer_weights::*weights;
  };
  layer_input input;
  std::vector<member> layers;
};
const std::array<sharing, 4> shared_inputs{
    {{layer_input::attention,
      {{"self_attn.q_proj", &layer_weights::q},
       {"self_attn.k_proj", &layer_weights::k},
       {"self_attn.v_proj", &layer_weights::v}}},
     {layer_input::output, {{"self_attn.o_proj", &layer_weights::o}}},
     {layer_input::feed_forward, {{"mlp.gate_proj", &layer_weights::gate}, {"mlp.up_proj", &layer_weights::up}}},
     {layer_input::down, {{"mlp.down_proj", &layer_weights::down}}}}};

/// What layers share at a stop of a walk, from 0.
const sharing& shared_at(std::size_t stop) {
  return shared_inputs[stop % shared_inputs.size()];
}

/// The names of the layers of a stop.
std::vector<std::string> names_at(std::size_t stop) {
  std::vector<std::string> names;
  for (const sharing::member& layer : shared_at(stop).layers)
    names.push_back("model.layers." + std::to_string(stop / shared_inputs.size()) + "." + layer.name);
  return names;
}

std::size_t cols_of(const model_config& c, layer_input input) {
  if (input == layer_input::output) return c.heads * c.head_dim;
  return input == layer_input::down ? c.intermediate : c.hidden;
}

model_config of_one_layer(model_config c) {
  c.layers = 1;
  return c;
}

result<void> goes_on(const sinq::progress_callback& progress, std::size_t done, std::size_t of) {
  if (!progress || progress(static_cast<double>(done) / static_cast<double>(of))) return {};
  return sinq::make_error(sinq::errc::cancelled, "cancelled by the progress callback");
}

} // namespace

std::vector<std::string> linear_layers(const model_config& config) {
  std::vector<std::string> names;
  for (std::size_t stop = 0; stop < config.layers * shared_inputs.size(); ++stop)
    for (std::string& name : names_at(stop)) names.push_back(std::move(name));
  return names;
}

calibration_walk::calibration_walk(const model& m, std::size_t length)
    : m_{m}, run_{m.config(), m.with(), 1, 0, length}, cache_{of_one_layer(m.config()), length, sinq::dtype::f32},
      scratch_{length, m.config().hidden} {}

result<calibration_walk> calibration_walk::begin(const model& m, std::span<const std::vector<int>> windows) {
  const std::size_t length = windows.front().size();
  calibration_walk walk{m, length};
  for (const std::vector<int>& window : windows) {
    if (auto ok = m.check(window); !ok) return std::move(ok).error();
    m.embed(window, walk.states_.emplace_back(length, m.config().hidden));
  }
  return walk;
}

bool calibration_walk::next() {
  const std::size_t each = shared_inputs.size();
  if (stops_ == each * m_.config().layers) return false;
  if (stops_ % each == 0) {
    before_ = std::move(here_);
    here_ = m_.weights().layers[stops_ / each];
  }
  ++stops_;
  return true;
}

std::vector<std::string> calibration_walk::layers() const {
  return names_at(stops_ - 1);
}

result<sinq::input_moments> calibration_walk::measure(bool full, const sinq::progress_callback& progress) {
  const layer_input input = shared_at(stops_ - 1).input;
  input_sums sums{cols_of(m_.config(), input), full, *m_.with().threads};
  result<void> added;
  const auto add = [&](layer_input of, matrix_view<const float> x) {
    if (of == input) added = sums.add(x);
  };
  for (std::size_t w = 0; w < states_.size(); ++w) {
    if (auto ok = run_up_to(input, states_[w], add); !ok) return std::move(ok).error();
    if (!added) return std::move(added).error();
    if (auto on = goes_on(progress, w + 1, states_.size()); !on) return std::move(on).error();
  }
  return sums.means();
}

/// Brings x to where these layers are used, and shows their inputs. The halves of a layer run twice: on a copy as far
/// as their last linear layer, and on x once that is replaced.
result<void> calibration_walk::run_up_to(layer_input input, matrix_view<float> x, const input_observer& observe) {
  const matrix_view<float> copy = scratch_;
  const std::span<kv_cache> cache{&cache_, 1};
  const auto show_normalized = [&](const std::vector<float>& gain) {
    normalize_rows(x, gain, m_.config().norm_eps, copy, *m_.with().threads);
    observe(input, copy);
    return result<void>{};
  };
  switch (input) {
  case layer_input::attention:
    if (stops_ > shared_inputs.size())
      if (auto ok = run_.feed_forward(before_, x); !ok) return ok;
    return show_normalized(here_.attention_norm);
  case layer_input::output: copy.eigen() = x.eigen(); return run_.attend(here_, 0, cache, copy, observe);
  case layer_input::feed_forward:
    if (auto ok = run_.attend(here_, 0, cache, x); !ok) return ok;
    return show_normalized(here_.mlp_norm);
  case layer_input::down: copy.eigen() = x.eigen(); return run_.feed_forward(here_, copy, observe);
  }
  return {};
}

void calibration_walk::replace(std::size_t layer, sinq::panel_matrix weight) {
  linear& at = here_.*shared_at(stops_ - 1).layers[layer].weights;
  at = at.with(std::move(weight));
}

result<void> calibrate(const model& m, std::span<const std::vector<int>> windows, bool full, const moments_sink& sink,
                       const sinq::progress_callback& progress) {
  auto walk = calibration_walk::begin(m, windows);
  if (!walk) return std::move(walk).error();
  const std::size_t stops = m.config().layers * shared_inputs.size();
  for (std::size_t done = 1; walk->next(); ++done) {
    const auto moments = walk->measure(full);
    if (!moments) return moments.error();
    for (const std::string& name : walk->layers())
      if (auto ok = sink(name, *moments); !ok) return ok;
    if (auto on = goes_on(progress, done, stops); !on) return on;
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
    if (auto on = goes_on(progress, n + 1, length); !on) return std::move(on).error();
  }
  return texts;
}

} // namespace engine
