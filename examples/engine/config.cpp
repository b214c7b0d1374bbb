#include "config.hpp"

#include <sinq/io/json_file.hpp>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace engine {
namespace {

using nlohmann::json;
using sinq::errc;
using sinq::make_error;
using sinq::result;

/// Reads values by name; the first that is missing or wrong stays as the error.
class fields {
public:
  explicit fields(const json& document) : document_{document} {}

  [[nodiscard]] bool has(const char* name) const { return document_.contains(name) && !document_[name].is_null(); }

  /// A whole number of at least 1 that fits 32 bits.
  void count(const char* name, std::size_t& to, std::size_t otherwise = 0) {
    if (!has(name) && otherwise != 0) {
      to = otherwise;
      return;
    }
    const json* const value = find(name, "a whole number from 1 to 2^31 - 1");
    if (value == nullptr) return;
    constexpr std::int64_t most = (std::int64_t{1} << 31) - 1;
    const bool whole = value->is_number_unsigned() && value->get<std::uint64_t>() <= static_cast<std::uint64_t>(most);
    if (!whole || value->get<std::uint64_t>() == 0) return wrong(name, "a whole number from 1 to 2^31 - 1");
    to = value->get<std::size_t>();
  }
  /// A finite number above 0.
  void positive(const char* name, double& to, double otherwise = 0) {
    if (!has(name) && otherwise != 0) {
      to = otherwise;
      return;
    }
    const json* const value = find(name, "a number above 0");
    if (value == nullptr) return;
    if (!value->is_number() || !(value->get<double>() > 0) || !sinq::is_finite(value->get<double>()))
      return wrong(name, "a number above 0");
    to = value->get<double>();
  }
  void flag(const char* name, bool& to) {
    if (!has(name)) return;
    if (!document_[name].is_boolean()) return wrong(name, "true or false");
    to = document_[name].get<bool>();
  }
  void text(const char* name, std::string& to) {
    const json* const value = find(name, "a string");
    if (value == nullptr) return;
    if (!value->is_string()) return wrong(name, "a string");
    to = value->get<std::string>();
  }
  /// A whole number or a list of them.
  void tokens(const char* name, std::vector<int>& to) {
    if (!has(name)) return;
    const json list = document_[name].is_array() ? document_[name] : json::array({document_[name]});
    for (const json& token : list) {
      if (!token.is_number_unsigned() || token.get<std::uint64_t>() >= std::uint64_t{1} << 31)
        return wrong(name, "numbers of tokens");
      to.push_back(token.get<int>());
    }
  }

  [[nodiscard]] const result<void>& outcome() const { return outcome_; }

private:
  const json* find(const char* name, const char* expected) {
    if (has(name)) return &document_[name];
    if (outcome_) outcome_ = make_error(errc::malformed, name, " is missing, expected ", expected);
    return nullptr;
  }
  void wrong(const char* name, const char* expected) {
    if (outcome_)
      outcome_ = make_error(errc::malformed, name, " is ", sinq::io::in_quotes(document_[name].dump()), ", expected ",
                            expected);
  }

  const json& document_;
  result<void> outcome_;
};

/// transformers 5 keeps theta and scaling in `rope_parameters`, earlier ones in `rope_theta` and `rope_scaling`. What
/// is missing has the value that transformers gives it, here and below.
result<void> read_rope(const json& document, model_config& c) {
  const char* const name = document.contains("rope_parameters") ? "rope_parameters" : "rope_scaling";
  const json rope = document.contains(name) && !document[name].is_null() ? document[name] : json::object();
  if (!rope.is_object())
    return make_error(errc::malformed, name, " is ", sinq::io::in_quotes(rope.dump()), ", expected an object");
  fields theta{rope.contains("rope_theta") ? rope : document};
  theta.positive("rope_theta", c.rope_theta, 10000);
  if (!theta.outcome()) return theta.outcome();

  fields f{rope};
  std::string type = "default";
  if (f.has("rope_type"))
    f.text("rope_type", type);
  else if (f.has("type"))
    f.text("type", type);
  if (type == "linear" || type == "llama3") f.positive("factor", c.rope.factor);
  if (type == "linear") c.rope.type = rope_scaling::kind::linear;
  if (type == "llama3") {
    c.rope.type = rope_scaling::kind::llama3;
    f.positive("low_freq_factor", c.rope.low_freq_factor);
    f.positive("high_freq_factor", c.rope.high_freq_factor);
    f.positive("original_max_position_embeddings", c.rope.original_context);
  }
  if (!f.outcome()) return f.outcome();
  if (type != "default" && type != "linear" && type != "llama3")
    return make_error(errc::unsupported, "rotary positions of type ", sinq::io::in_quotes(type),
                      ", expected default, linear or llama3");
  if (c.rope.type == rope_scaling::kind::llama3 && c.rope.high_freq_factor <= c.rope.low_freq_factor)
    return make_error(errc::malformed, "high_freq_factor is ", c.rope.high_freq_factor,
                      ", expected more than low_freq_factor, ", c.rope.low_freq_factor);
  return {};
}

result<void> read_architecture(const json& document, model_config& c) {
  fields f{document};
  f.text("model_type", c.type);
  if (!f.outcome()) return f.outcome();
  if (c.type != "llama" && c.type != "mistral" && c.type != "qwen2" && c.type != "qwen3")
    return make_error(errc::unsupported, "model_type is ", sinq::io::in_quotes(c.type),
                      ", expected llama, mistral, qwen2 or qwen3");
  std::string activation = "silu";
  if (f.has("hidden_act")) f.text("hidden_act", activation);
  f.flag("attention_bias", c.qkv_bias);
  f.flag("mlp_bias", c.mlp_bias);
  bool windowed = c.type == "mistral";
  f.flag("use_sliding_window", windowed);
  if (windowed && (f.has("sliding_window") || !document.contains("sliding_window")))
    f.count("sliding_window", c.window, 4096);
  if (!f.outcome()) return f.outcome();
  if (activation != "silu")
    return make_error(errc::unsupported, "hidden_act is ", sinq::io::in_quotes(activation), ", expected silu");
  if (c.window != 0 && c.type != "mistral")
    return make_error(errc::unsupported, "use_sliding_window is true: layers that see different numbers of positions");
  c.output_bias = c.qkv_bias;
  if (c.type == "qwen2") c.qkv_bias = true, c.output_bias = false;
  c.qk_norm = c.type == "qwen3";
  return {};
}

result<model_config> parse(const json& document) {
  model_config c;
  if (auto ok = read_architecture(document, c); !ok) return ok.error();
  fields f{document};
  f.count("hidden_size", c.hidden);
  f.count("intermediate_size", c.intermediate);
  f.count("num_hidden_layers", c.layers);
  f.count("num_attention_heads", c.heads);
  f.count("num_key_value_heads", c.kv_heads, c.heads);
  f.count("vocab_size", c.vocabulary);
  f.count("max_position_embeddings", c.context);
  f.positive("rms_norm_eps", c.norm_eps);
  f.flag("tie_word_embeddings", c.tied_embeddings);
  f.tokens("eos_token_id", c.end_tokens);
  if (!f.outcome()) return f.outcome().error();
  if (!f.has("head_dim") && c.type != "qwen3" && c.hidden % c.heads != 0)
    return make_error(errc::malformed, "hidden_size is ", c.hidden, ", expected a multiple of num_attention_heads, ",
                      c.heads);
  f.count("head_dim", c.head_dim, c.type == "qwen3" ? 128 : c.hidden / c.heads);
  if (!f.outcome()) return f.outcome().error();
  if (c.heads % c.kv_heads != 0)
    return make_error(errc::malformed, "num_attention_heads is ", c.heads,
                      ", expected a multiple of num_key_value_heads, ", c.kv_heads);
  if (c.head_dim % 2 != 0) return make_error(errc::malformed, "head_dim is ", c.head_dim, ", expected an even number");
  if (auto ok = read_rope(document, c); !ok) return ok.error();
  return c;
}

/// Tokens that end a text by the configuration of generation, where there is one, and which that of the model may lack.
result<void> read_end_tokens(const std::filesystem::path& path, model_config& c) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return {};
  const auto document = sinq::io::load_json_object(path);
  if (!document) return document.error();
  fields f{*document};
  std::vector<int> more;
  f.tokens("eos_token_id", more);
  if (!f.outcome()) return sinq::error{f.outcome().error()}.in(path.string());
  for (const int token : more)
    if (std::find(c.end_tokens.begin(), c.end_tokens.end(), token) == c.end_tokens.end()) c.end_tokens.push_back(token);
  return {};
}

} // namespace

result<model_config> read_config(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "config.json";
  const auto document = sinq::io::load_json_object(path);
  if (!document) return document.error();
  auto config = parse(*document);
  if (!config) return std::move(config).error().in(path.string());
  if (auto ok = read_end_tokens(directory / "generation_config.json", *config); !ok) return ok.error();
  return config;
}

std::vector<double> rope_frequencies(const model_config& c) {
  std::vector<double> frequencies(c.head_dim / 2);
  const rope_scaling& s = c.rope;
  for (std::size_t k = 0; k < frequencies.size(); ++k) {
    const double f = std::pow(c.rope_theta, -2.0 * static_cast<double>(k) / static_cast<double>(c.head_dim));
    if (s.type == rope_scaling::kind::llama3) {
      const double turns = s.original_context * f / (2 * std::numbers::pi);
      const double kept = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
      const double share = std::clamp(kept, 0.0, 1.0);
      frequencies[k] = share * f + (1 - share) * f / s.factor;
    } else {
      frequencies[k] = f / s.factor;
    }
  }
  return frequencies;
}

} // namespace engine
