#pragma once

#include "config.hpp"
#include "linear.hpp"

#include <sinq/io/checkpoint.hpp>
#include <sinq/quant/options.hpp>

#include <functional>
#include <optional>

namespace engine {

/// The weights of one decoder layer.
struct layer_weights {
  std::vector<float> attention_norm, mlp_norm; ///< [hidden]
  std::vector<float> q_norm, k_norm;           ///< [head_dim], or nothing
  linear q, k, v, o, gate, up, down;
};

/// Rows by number: the vectors of tokens.
class row_table {
public:
  row_table() = default;
  explicit row_table(std::variant<float_matrix, sinq::packed_matrix> rows) : rows_{std::move(rows)} {}
  void load(std::size_t row, std::span<float> to) const;

private:
  std::variant<float_matrix, sinq::packed_matrix> rows_;
};

struct model_weights {
  row_table embedding; ///< [vocabulary x hidden]
  std::vector<layer_weights> layers;
  std::vector<float> norm; ///< [hidden]
  linear output;           ///< [vocabulary x hidden]
};

/// Quantizes a float layer of the decoder as it is read, by the name of its weight; the embedding and the output matrix
/// stay as they are.
/// @return  the options, or nothing for a layer that stays as it is
using layer_quantizer = std::function<std::optional<sinq::quantize_options>(const std::string& name)>;

/// Reads all weights that the configuration asks for, in place where the file's layout allows it.
/// @param model  a float model, or what `sinq quantize` wrote
/// @errors  errc::not_found (a tensor is missing; names it), errc::malformed (a shape that the configuration does not
///          have; names tensor, shape and what was expected), those of quantize, pack and to_panels
[[nodiscard]] sinq::result<model_weights> load_weights(const sinq::io::checkpoint& model, const model_config& config,
                                                       const layer_quantizer& quantize = {},
                                                       const sinq::run_options& run = {});

} // namespace engine
