#pragma once

#include <sinq/core/error.hpp>

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

namespace engine {

/// How the angles of rotary positions are changed for contexts longer than those of training.
struct rope_scaling {
  enum class kind { none, linear, llama3 };
  kind type = kind::none;
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4; ///< of llama3
  double original_context = 0;                      ///< of llama3: positions that were trained
};

/// What `config.json` says of a decoder-only model: llama, mistral, qwen2 or qwen3.
struct model_config {
  std::string type; ///< `model_type`
  std::size_t hidden = 0, intermediate = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, vocabulary = 0;
  std::size_t context = 0; ///< positions that the model knows
  std::size_t window = 0;  ///< positions that a token sees, itself included; 0: all before it
  double norm_eps = 0, rope_theta = 0;
  rope_scaling rope;
  bool tied_embeddings = false;               ///< the output matrix is the embedding
  bool qkv_bias = false, output_bias = false; ///< of the attention's projections
  bool mlp_bias = false;
  bool qk_norm = false;        ///< each head of q and k is normalised
  std::vector<int> end_tokens; ///< of this file and of `generation_config.json`
};

/// Reads and checks `config.json` of a model directory, and the end tokens of `generation_config.json` if it is there.
/// @errors  errc::not_found, errc::malformed (a value of another type, or one that fits no model; names it),
///          errc::unsupported (another architecture, activation, or kind of rotary positions; names it)
[[nodiscard]] sinq::result<model_config> read_config(const std::filesystem::path& directory);

/// Angles per position of the head_dim / 2 pairs of a head, [head_dim / 2]: theta^(-2 k / d), stretched as the scaling
/// says. Source: transformers modeling_rope_utils.py.
[[nodiscard]] std::vector<double> rope_frequencies(const model_config& config);

} // namespace engine
