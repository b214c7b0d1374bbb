#include "weights.hpp"

#include <sinq/pack/dequantize.hpp>
#include <sinq/pack/pack.hpp>
#include <sinq/quant/quantize.hpp>

namespace engine {
namespace {

using sinq::errc;
using sinq::make_error;
using sinq::result;
using sinq::io::checkpoint_tensor;

/// Reads tensors by name; the first failure stays as the error.
class weight_reader {
public:
  weight_reader(const sinq::io::checkpoint& model, const layer_quantizer& quantize, const sinq::run_options& run)
      : model_{model}, quantize_{quantize}, run_{run} {}

  [[nodiscard]] const result<void>& outcome() const { return outcome_; }

  [[nodiscard]] std::vector<float> vector(const std::string& name, std::size_t size) {
    const checkpoint_tensor* const tensor = find(name, {size});
    if (tensor == nullptr) return {};
    std::vector<float> values(size);
    sinq::load_floats(model_.data(*tensor).data(), tensor->type, values);
    return values;
  }

  [[nodiscard]] linear layer(const std::string& name, std::size_t rows, std::size_t cols, bool has_bias) {
    std::vector<float> bias = has_bias ? vector(name + ".bias", rows) : std::vector<float>{};
    return matrix(name + ".weight", rows, cols, std::move(bias), quantize_);
  }

  [[nodiscard]] linear matrix(const std::string& name, std::size_t rows, std::size_t cols, std::vector<float> bias = {},
                              const layer_quantizer& quantize = {}) {
    const checkpoint_tensor* const tensor = find(name, {rows, cols});
    if (tensor == nullptr) return {};
    if (!tensor->quantized) return floats(*tensor, std::move(bias), quantize);
    auto panels = model_.panels(*tensor, run_);
    if (!panels) return fail(std::move(panels).error(), name), linear{};
    if (model_.layout(*tensor) != sinq::io::code_layout::panels) model_.release(*tensor);
    return {*std::move(panels), std::move(bias)};
  }

  [[nodiscard]] row_table table(const std::string& name, std::size_t rows, std::size_t cols) {
    const checkpoint_tensor* const tensor = find(name, {rows, cols});
    if (tensor == nullptr) return {};
    if (tensor->quantized) return row_table{model_.packed(*tensor, run_.threads)};
    return row_table{in_place(*tensor)};
  }

private:
  [[nodiscard]] const checkpoint_tensor* find(const std::string& name, const std::vector<std::size_t>& shape) {
    if (!outcome_) return nullptr;
    const checkpoint_tensor* const tensor = model_.find(name);
    if (tensor == nullptr) {
      outcome_ = make_error(errc::not_found, "the model has no tensor ", sinq::io::in_quotes(name));
    } else if (tensor->shape != shape) {
      outcome_ = make_error(errc::malformed, "tensor ", sinq::io::in_quotes(name), " has shape ",
                            sinq::io::to_string(tensor->shape), ", expected ", sinq::io::to_string(shape));
    } else if (!tensor->quantized && !sinq::info(tensor->type).is_float) {
      outcome_ = make_error(errc::malformed, "tensor ", sinq::io::in_quotes(name), " has type ",
                            to_string(tensor->type), ", expected floats");
    } else {
      return tensor;
    }
    return nullptr;
  }

  [[nodiscard]] float_matrix in_place(const checkpoint_tensor& tensor) const {
    return {model_.data(tensor), tensor.type, tensor.shape[0], tensor.shape[1]};
  }

  [[nodiscard]] linear floats(const checkpoint_tensor& tensor, std::vector<float> bias,
                              const layer_quantizer& quantize) {
    const float_matrix w = in_place(tensor);
    std::optional<sinq::quantize_options> options;
    if (quantize) options = quantize(tensor.name);
    if (!options) return {w, std::move(bias)};
    options->run = run_;
    auto panels = quantized(w, *options);
    if (!panels) return fail(std::move(panels).error(), tensor.name), linear{};
    model_.release(tensor);
    return {*std::move(panels), std::move(bias)};
  }

  [[nodiscard]] result<sinq::panel_matrix> quantized(const float_matrix& w,
                                                     const sinq::quantize_options& options) const {
    const auto codes = sinq::quantize(w.view(), options);
    if (!codes) return codes.error();
    const auto packed = sinq::pack(*codes, run_);
    if (!packed) return packed.error();
    return sinq::to_panels(*packed, run_);
  }

  void fail(sinq::error failure, const std::string& name) {
    if (outcome_) outcome_ = std::move(failure).in("tensor " + sinq::io::in_quotes(name));
  }

  const sinq::io::checkpoint& model_;
  const layer_quantizer& quantize_;
  const sinq::run_options& run_;
  result<void> outcome_;
};

layer_weights read_layer(weight_reader& read, const model_config& c, const std::string& name) {
  const std::size_t query = c.heads * c.head_dim, key = c.kv_heads * c.head_dim;
  layer_weights w;
  w.attention_norm = read.vector(name + "input_layernorm.weight", c.hidden);
  w.mlp_norm = read.vector(name + "post_attention_layernorm.weight", c.hidden);
  if (c.qk_norm) {
    w.q_norm = read.vector(name + "self_attn.q_norm.weight", c.head_dim);
    w.k_norm = read.vector(name + "self_attn.k_norm.weight", c.head_dim);
  }
  w.q = read.layer(name + "self_attn.q_proj", query, c.hidden, c.qkv_bias);
  w.k = read.layer(name + "self_attn.k_proj", key, c.hidden, c.qkv_bias);
  w.v = read.layer(name + "self_attn.v_proj", key, c.hidden, c.qkv_bias);
  w.o = read.layer(name + "self_attn.o_proj", c.hidden, query, c.output_bias);
  w.gate = read.layer(name + "mlp.gate_proj", c.intermediate, c.hidden, c.mlp_bias);
  w.up = read.layer(name + "mlp.up_proj", c.intermediate, c.hidden, c.mlp_bias);
  w.down = read.layer(name + "mlp.down_proj", c.hidden, c.intermediate, c.mlp_bias);
  return w;
}

} // namespace

void row_table::load(std::size_t row, std::span<float> to) const {
  if (const auto* const floats = std::get_if<float_matrix>(&rows_)) return floats->view().load(row, 0, to);
  sinq::dequantize_rows(std::get<sinq::packed_matrix>(rows_), row, {to.data(), 1, to.size()});
}

result<model_weights> load_weights(const sinq::io::checkpoint& model, const model_config& c,
                                   const layer_quantizer& quantize, const sinq::run_options& run) {
  const std::string embedding = "model.embed_tokens.weight";
  weight_reader read{model, quantize, run};
  model_weights w;
  w.embedding = read.table(embedding, c.vocabulary, c.hidden);
  for (std::size_t n = 0; n < c.layers && read.outcome(); ++n)
    w.layers.push_back(read_layer(read, c, "model.layers." + std::to_string(n) + "."));
  w.norm = read.vector("model.norm.weight", c.hidden);
  w.output = read.matrix(c.tied_embeddings ? embedding : "lm_head.weight", c.vocabulary, c.hidden);
  if (!read.outcome()) return read.outcome().error();
  return w;
}

} // namespace engine
