#include "engine/golden_models.hpp"
#include "io/files.hpp"
#include "support/compare.hpp"

#include <engine/config.hpp>
#include <sinq/io/json_file.hpp>

using engine::model_config;
using engine::read_config;
using engine::rope_frequencies;
using engine::rope_scaling;
using nlohmann::json;
using sinq::errc;
using sinq_test::check_error;
using sinq_test::golden_model;
using sinq_test::golden_models;
using sinq_test::scratch;
using sinq_test::value_of;

namespace {

json golden_document(const std::string& name) {
  return value_of(sinq::io::load_json_object(golden_model(name) / "config.json"));
}

sinq::result<model_config> read_document(const json& document) {
  const scratch directory;
  sinq_test::write_file(directory / "config.json", document.dump());
  return read_config(directory.root());
}

/// config.json as transformers 4 wrote it; `type_name` is what it called the type of a scaling, in different years.
json older(json document, const char* type_name = "rope_type") {
  json scaling = document["rope_parameters"];
  document.erase("rope_parameters");
  document["rope_theta"] = scaling["rope_theta"];
  const json type = scaling["rope_type"];
  scaling.erase("rope_theta");
  scaling.erase("rope_type");
  scaling[type_name] = type;
  document["rope_scaling"] = type == "default" ? json{} : scaling;
  return document;
}

/// transformers takes powers in f32; its rounding is 2^-24, a few of which add up.
sinq_test::verdict golden_rope(const std::string& name, const model_config& config) {
  const std::vector<double> actual = rope_frequencies(config);
  const std::vector<float> expected = sinq_test::expectation{name}.frequencies;
  return sinq_test::close_each(std::span<const double>{actual}, std::span<const float>{expected}, 1e-6);
}

/// A document of a model without anything that may be left out.
json least_document() {
  return {{"model_type", "llama"},    {"hidden_size", 64}, {"intermediate_size", 96}, {"num_hidden_layers", 2},
          {"num_attention_heads", 4}, {"vocab_size", 96},  {"rms_norm_eps", 1e-5},    {"max_position_embeddings", 128}};
}

json with(const char* name, const json& value) {
  json document = least_document();
  document[name] = value;
  return document;
}

json with_scaling(const char* type, const char* name, const json& value) {
  json scaling{{"rope_type", type},
               {"factor", 8.0},
               {"low_freq_factor", 1.0},
               {"high_freq_factor", 4.0},
               {"original_max_position_embeddings", 16}};
  scaling[name] = value;
  return with("rope_scaling", scaling);
}

} // namespace

TEST_CASE("config of each golden model is what its file says") {
  const model_config llama = value_of(read_config(golden_model("llama")));
  CHECK(llama.type == "llama");
  CHECK(llama.hidden == 64);
  CHECK(llama.intermediate == 96);
  CHECK(llama.layers == 2);
  CHECK(llama.heads == 4);
  CHECK(llama.kv_heads == 2);
  CHECK(llama.head_dim == 16);
  CHECK(llama.vocabulary == 96);
  CHECK(llama.context == 128);
  CHECK(llama.window == 0);
  CHECK(llama.norm_eps == 1e-5);
  CHECK(llama.rope_theta == 10000);
  CHECK(llama.rope.type == rope_scaling::kind::none);
  CHECK((llama.tied_embeddings && llama.qkv_bias && llama.output_bias && llama.mlp_bias && !llama.qk_norm));
  CHECK(llama.end_tokens == std::vector<int>{2});

  const model_config llama3 = value_of(read_config(golden_model("llama3")));
  CHECK(llama3.rope.type == rope_scaling::kind::llama3);
  CHECK(llama3.rope.factor == 8);
  CHECK(llama3.rope.low_freq_factor == 1);
  CHECK(llama3.rope.high_freq_factor == 4);
  CHECK(llama3.rope.original_context == 32);
  CHECK((!llama3.tied_embeddings && !llama3.qkv_bias && !llama3.output_bias && !llama3.mlp_bias));

  CHECK(value_of(read_config(golden_model("linear"))).rope.type == rope_scaling::kind::linear);
  CHECK(value_of(read_config(golden_model("mistral"))).window == 7);
  const model_config qwen2 = value_of(read_config(golden_model("qwen2")));
  CHECK((qwen2.qkv_bias && !qwen2.output_bias && !qwen2.qk_norm && qwen2.kv_heads == 1));
  const model_config qwen3 = value_of(read_config(golden_model("qwen3")));
  CHECK((!qwen3.qkv_bias && qwen3.qk_norm && qwen3.head_dim == 16 && qwen3.hidden == 32));
}

TEST_CASE("config leaves to defaults what may be missing or null") {
  const model_config c = value_of(read_document(least_document()));
  CHECK(c.kv_heads == 4);
  CHECK(c.head_dim == 16);
  CHECK(c.end_tokens.empty());
  CHECK(c.rope_theta == 10000);
  CHECK((!c.tied_embeddings && !c.qkv_bias && !c.mlp_bias && c.rope.type == rope_scaling::kind::none));
  json document = least_document();
  for (const char* const name : {"num_key_value_heads", "head_dim", "eos_token_id", "tie_word_embeddings",
                                 "attention_bias", "hidden_act", "rope_scaling", "sliding_window"})
    document[name] = json{};
  CHECK(value_of(read_document(document)).head_dim == 16);
  document["model_type"] = "mistral";
  CHECK(value_of(read_document(document)).window == 0);
  CHECK(value_of(read_document(with("model_type", "mistral"))).window == 4096);
  CHECK(value_of(read_document(with("model_type", "qwen3"))).head_dim == 128);
  CHECK(value_of(read_document(with("eos_token_id", {1, 5}))).end_tokens == std::vector<int>{1, 5});
  document = with("sliding_window", 9);
  document["model_type"] = "qwen2";
  document["use_sliding_window"] = false;
  CHECK(value_of(read_document(document)).window == 0);
}

TEST_CASE("config's rotary frequencies are those of transformers, from either form of the file") {
  for (const char* const name : golden_models) {
    CAPTURE(name);
    CHECK(golden_rope(name, value_of(read_config(golden_model(name)))));
    for (const char* const type_name : {"rope_type", "type"}) {
      const model_config old = value_of(read_document(older(golden_document(name), type_name)));
      CHECK(golden_rope(name, old));
    }
  }
}

TEST_CASE("the comparison of rotary frequencies sees a wrong theta, factor and bound of llama3") {
  model_config c = value_of(read_config(golden_model("llama3")));
  c.rope_theta *= 1.001;
  CHECK_FALSE(golden_rope("llama3", c));
  for (double rope_scaling::*const field : {&rope_scaling::factor, &rope_scaling::low_freq_factor,
                                            &rope_scaling::high_freq_factor, &rope_scaling::original_context}) {
    c = value_of(read_config(golden_model("llama3")));
    c.rope.*field *= 1.001;
    CHECK_FALSE(golden_rope("llama3", c));
  }
  c = value_of(read_config(golden_model("linear")));
  c.rope.factor = 1;
  CHECK_FALSE(golden_rope("linear", c));
}

TEST_CASE("config names each value that is missing") {
  const json whole = least_document();
  for (const auto& [name, value] : whole.items()) {
    json document = whole;
    document.erase(name);
    check_error(read_document(document), errc::malformed, {"config.json: ", name + " is missing"});
  }
  for (const char* const name : {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"})
    check_error(read_document(with_scaling("llama3", name, {})), errc::malformed, {name, "is missing"});
  check_error(read_document(with_scaling("linear", "factor", {})), errc::malformed, {"factor is missing"});
}

TEST_CASE("config names each value of a wrong type or range") {
  const char* const counts[] = {
      "hidden_size",         "intermediate_size", "num_hidden_layers", "num_attention_heads",
      "num_key_value_heads", "vocab_size",        "head_dim",          "max_position_embeddings"};
  for (const char* const name : counts)
    for (const json& value :
         {json(0), json(-1), json(2.5), json("4"), json(true), json(std::int64_t{1} << 31), json(1e300)})
      check_error(read_document(with(name, value)), errc::malformed,
                  {std::string{name} + " is '" + value.dump() + "'", "a whole number from 1 to 2^31 - 1"});
  for (const char* const name : {"rms_norm_eps", "rope_theta"})
    for (const json& value : {json(0), json(-1.5), json("1"), json(json::array())})
      check_error(read_document(with(name, value)), errc::malformed, {std::string{name} + " is '", "a number above 0"});
  for (const char* const name : {"attention_bias", "mlp_bias", "tie_word_embeddings", "use_sliding_window"})
    check_error(read_document(with(name, 1)), errc::malformed, {std::string{name} + " is '1'", "true or false"});
  for (const char* const name : {"model_type", "hidden_act"})
    check_error(read_document(with(name, 7)), errc::malformed, {std::string{name} + " is '7'", "a string"});
  for (const json& value : {json("a"), json(-1), json({1, -1}), json({1, 2.5}), json(std::int64_t{1} << 31)})
    check_error(read_document(with("eos_token_id", value)), errc::malformed,
                {"eos_token_id is '", "numbers of tokens"});
  check_error(read_document(with("rope_scaling", "linear")), errc::malformed, {"rope_scaling is '", "an object"});
  check_error(read_document(with("rope_parameters", 3)), errc::malformed, {"rope_parameters is '3'", "an object"});
  check_error(read_document(with_scaling("linear", "factor", 0)), errc::malformed, {"factor is '0'"});
  check_error(read_document(with_scaling("llama3", "rope_type", 0)), errc::malformed, {"rope_type is '0'", "a string"});
}

TEST_CASE("config names values that do not fit each other") {
  check_error(read_document(with("num_attention_heads", 3)), errc::malformed, {"hidden_size is 64", "multiple", "3"});
  check_error(read_document(with("num_key_value_heads", 3)), errc::malformed,
              {"num_attention_heads is 4", "multiple of num_key_value_heads, 3"});
  check_error(read_document(with("head_dim", 7)), errc::malformed, {"head_dim is 7", "even"});
  for (const double high : {0.5, 1.0})
    check_error(read_document(with_scaling("llama3", "high_freq_factor", high)), errc::malformed,
                {"high_freq_factor is ", "more than low_freq_factor, 1"});
}

TEST_CASE("config names what this engine does not run") {
  check_error(read_document(with("model_type", "gpt2")), errc::unsupported, {"model_type is 'gpt2'", "llama, mistral"});
  check_error(read_document(with("hidden_act", "gelu")), errc::unsupported, {"hidden_act is 'gelu'", "silu"});
  check_error(read_document(with_scaling("yarn", "factor", 2)), errc::unsupported, {"'yarn'", "linear or llama3"});
  json document = with("sliding_window", 9);
  document["model_type"] = "qwen2";
  document["use_sliding_window"] = true;
  check_error(read_document(document), errc::unsupported, {"use_sliding_window is true"});
}

TEST_CASE("config adds the end tokens of the configuration of generation") {
  const scratch directory;
  sinq_test::write_file(directory / "config.json", with("eos_token_id", 5).dump());
  CHECK(value_of(read_config(directory.root())).end_tokens == std::vector<int>{5});
  sinq_test::write_file(directory / "generation_config.json", R"({"eos_token_id": [7, 5]})");
  CHECK(value_of(read_config(directory.root())).end_tokens == std::vector<int>{5, 7});
  sinq_test::write_file(directory / "generation_config.json", R"({"eos_token_id": "x"})");
  check_error(read_config(directory.root()), errc::malformed, {"generation_config.json", "eos_token_id is '\"x\"'"});
}

TEST_CASE("config says which file cannot be read") {
  const scratch directory;
  check_error(read_config(directory.root()), errc::not_found, {"config.json"});
  sinq_test::write_file(directory / "config.json", "[1]");
  check_error(read_config(directory.root()), errc::malformed, {"config.json", "expected an object"});
  sinq_test::write_file(directory / "config.json", "{");
  check_error(read_config(directory.root()), errc::malformed, {"config.json", "not valid JSON"});
}
