#pragma once

#include "json_file.hpp"
#include "official_meta.hpp"

#include <array>
#include <cmath>
#include <numbers>
#include <optional>
#include <string>
#include <vector>

namespace sinq::io {

inline constexpr std::string_view config_name = "config.json";

/// Element type that a model's configuration names for its weights, if it does.
[[nodiscard]] inline std::optional<dtype> config_dtype(const nlohmann::json& config) {
  for (const char* const key : {"dtype", "torch_dtype"}) {
    const nlohmann::json& found = detail::field(config, key);
    if (found == "float32") return dtype::f32;
    if (found == "float16") return dtype::f16;
    if (found == "bfloat16") return dtype::bf16;
  }
  return std::nullopt;
}

/// What the official checkpoint's configuration says of its quantization.
struct official_quantization {
  int bits = 4;
  std::size_t group_size = 64;
  std::vector<std::string> not_converted; ///< linear layers that are not quantized
};

/// Marks a configuration as that of an official checkpoint, as transformers' SinqConfig is saved.
inline void add_quantization(nlohmann::json& config, const official_quantization& q) {
  config["quantization_config"] = {{"_extra_kwargs", nlohmann::json::object()},
                                   {"backend", "sinq"},
                                   {"group_size", q.group_size},
                                   {"method", "sinq"},
                                   {"modules_to_not_convert", q.not_converted},
                                   {"nbits", q.bits},
                                   {"quant_method", "sinq"},
                                   {"quantization_method", "sinq"},
                                   {"sinq", true},
                                   {"sinq_version", "auto"},
                                   {"tiling_mode", "1D"}};
  config["sinq"] = true;
}

/// Removes that mark, so that the configuration is one of an ordinary model.
inline void remove_quantization(nlohmann::json& config) {
  config.erase("quantization_config");
  config.erase("sinq");
}

namespace detail {

/// Constants of rotary position embeddings, from wherever a configuration of either generation has them.
class rope_fields {
public:
  explicit rope_fields(const nlohmann::json& config) : config_{config} {
    for (const char* const key : {"rope_parameters", "rope_scaling"})
      if (parameters_ == nullptr && field(config, key).is_object()) parameters_ = &field(config, key);
  }

  /// Whether the model has such embeddings in a `rotary_emb` of its own.
  [[nodiscard]] bool present() const {
    const nlohmann::json& type = field(config_, "model_type");
    return parameters_ != nullptr || !field(config_, "rope_theta").is_null() || type == "llama" || type == "mistral";
  }
  [[nodiscard]] std::string type() const {
    for (const char* const key : {"rope_type", "type"})
      if (const auto& found = at(key); found.is_string()) return found.get<std::string>();
    return at("rope_type").is_null() ? "default" : at("rope_type").dump();
  }
  /// Whether each kind of layer has its own constants.
  [[nodiscard]] bool nested() const {
    if (parameters_ == nullptr) return false;
    for (const nlohmann::json& value : *parameters_)
      if (value.is_object()) return true;
    return false;
  }
  /// A positive number; the fallback, if any, where there is none.
  [[nodiscard]] result<double> number(std::string_view key, std::optional<double> fallback = {}) const {
    const nlohmann::json& found = at(key);
    if (found.is_null() && fallback) return *fallback;
    if (!found.is_number() || !(found.get<double>() > 0)) return unexpected_field(key, found, "a positive number");
    return found.get<double>();
  }

private:
  [[nodiscard]] const nlohmann::json& at(std::string_view key) const {
    if (parameters_ != nullptr && !field(*parameters_, key).is_null()) return field(*parameters_, key);
    return field(config_, key);
  }

  const nlohmann::json& config_;
  const nlohmann::json* parameters_ = nullptr;
};

/// Length of the rotated part of a head.
[[nodiscard]] inline result<std::size_t> rotary_dimension(const nlohmann::json& config, const rope_fields& rope) {
  double head = 0;
  if (field(config, "head_dim").is_null()) {
    const auto hidden = rope.number("hidden_size");
    if (!hidden) return hidden.error();
    const auto heads = rope.number("num_attention_heads");
    if (!heads) return heads.error();
    head = std::floor(*hidden / *heads);
  } else {
    const auto stated = rope.number("head_dim");
    if (!stated) return stated.error();
    head = *stated;
  }
  const auto part = rope.number("partial_rotary_factor", 1.0);
  if (!part) return part.error();
  const double dimension = std::floor(head * *part);
  if (!(dimension >= 2 && dimension <= 65536))
    return make_error(errc::malformed, "the rotary dimension is ", dimension, ", expected 2 to 65536");
  return static_cast<std::size_t>(dimension);
}

/// theta^(-2 k / d) with the roundings of transformers, whose positions multiply what is lost here.
[[nodiscard]] inline float rotary_frequency(double theta, std::size_t k, std::size_t dimension) {
  const float exponent = static_cast<float>(2 * k) / static_cast<float>(dimension);
  return 1.0f / static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
}

/// The frequencies of Llama 3: long waves are slowed down by `factor`, short ones kept, those between blended.
[[nodiscard]] inline result<void> stretch_as_llama3(const rope_fields& rope, std::vector<float>& frequencies) {
  std::array<float, 4> v{};
  constexpr std::array keys{"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"};
  for (std::size_t n = 0; n < keys.size(); ++n) {
    const auto value = rope.number(keys[n]);
    if (!value) return value.error();
    v[n] = static_cast<float>(*value);
  }
  const auto [factor, low, high, length] = v;
  for (float& frequency : frequencies) {
    const float wave = 2 * std::numbers::pi_v<float> / frequency;
    const float blend = (length / wave - low) / (high - low);
    if (wave > length / low)
      frequency /= factor;
    else if (!(wave < length / high))
      frequency = (1 - blend) * frequency / factor + blend * frequency;
  }
  return {};
}

} // namespace detail

/// The buffer `inv_freq` of a model's rotary embeddings, which the official reader wants to find in the checkpoint:
///   inv_freq[k] = theta^(-2 k / d),  k < d / 2
/// and scaled as rope_type says: default, linear, dynamic (as before its first long input) or llama3.
/// @return  empty if the model has none
/// @errors  errc::unsupported (another rope_type, or constants for each kind of layer), errc::malformed (a constant)
/// Source: transformers modeling_rope_utils.py.
[[nodiscard]] inline result<std::vector<float>> rotary_frequencies(const nlohmann::json& config) {
  const detail::rope_fields rope{config};
  if (!rope.present()) return std::vector<float>{};
  const std::string type = rope.type();
  const bool known = type == "default" || type == "linear" || type == "dynamic" || type == "llama3";
  if (!known || rope.nested())
    return make_error(errc::unsupported, "rotary embeddings of ",
                      rope.nested() ? "several kinds of layers" : "rope_type " + in_quotes(type),
                      ", expected rope_type default, linear, dynamic or llama3");
  const auto theta = rope.number("rope_theta", 10000.0);
  if (!theta) return theta.error();
  const auto dimension = detail::rotary_dimension(config, rope);
  if (!dimension) return dimension.error();
  std::vector<float> frequencies((*dimension + 1) / 2);
  for (std::size_t k = 0; k < frequencies.size(); ++k) frequencies[k] = detail::rotary_frequency(*theta, k, *dimension);
  if (type == "linear") {
    const auto factor = rope.number("factor");
    if (!factor) return factor.error();
    for (float& frequency : frequencies) frequency /= static_cast<float>(*factor);
  }
  if (type == "llama3")
    if (auto done = detail::stretch_as_llama3(rope, frequencies); !done) return std::move(done).error();
  return frequencies;
}

} // namespace sinq::io
