#include "support/catch.hpp"

#include <sinq/model/plan.hpp>

#include <array>
#include <string>
#include <vector>

namespace {

sinq::quantization_plan plan(const std::vector<std::string>& include = {}, const std::vector<std::string>& exclude = {},
                             const std::vector<std::pair<std::string, int>>& bits_for = {}) {
  auto made = sinq::quantization_plan::make(4, include, exclude, bits_for);
  REQUIRE(made);
  return *std::move(made);
}

constexpr std::array<std::size_t, 2> square{8, 8};

int bits(const sinq::quantization_plan& p, std::string_view name) {
  return p({name, sinq::dtype::bf16, square}).bits;
}

} // namespace

TEST_CASE("linear weights are quantized by default, whatever they are called") {
  const auto p = plan();
  for (const char* name :
       {"model.layers.0.self_attn.q_proj.weight", "model.layers.3.mlp.down_proj.weight", "h.0.attn.c_attn.weight",
        "encoder.layer.0.output.dense.weight", "w", "weight", "blocks.1.ffn.w2.weight"})
    CHECK(bits(p, name) == 4);
}

TEST_CASE("embeddings, norms, heads and biases stay") {
  const auto p = plan();
  for (const char* name :
       {"model.embed_tokens.weight", "lm_head.weight", "transformer.wte.weight", "wpe.weight",
        "embeddings.position_embeddings.weight", "model.norm.weight", "h.0.ln_1.weight", "encoder.LayerNorm.weight",
        "attn.q_proj.bias", "output.weight", "model.rotary_emb.inv_freq"}) {
    INFO(name);
    CHECK(bits(p, name) == 0);
    CHECK_FALSE(p({name, sinq::dtype::bf16, square}).reason.empty());
  }
}

TEST_CASE("only floating matrices with elements can be quantized, even when included") {
  const auto p = plan({".*"});
  const std::array<std::size_t, 1> vector{8};
  const std::array<std::size_t, 3> cube{8, 8, 8};
  const std::array<std::size_t, 2> empty{0, 8};
  const std::array<std::size_t, 2> column{8, 1};
  CHECK_FALSE(p({"a", sinq::dtype::f32, vector}).quantized());
  CHECK_FALSE(p({"a", sinq::dtype::f32, cube}).quantized());
  CHECK_FALSE(p({"a", sinq::dtype::f32, empty}).quantized());
  CHECK_FALSE(p({"a", sinq::dtype::f32, {}}).quantized());
  CHECK_FALSE(p({"a", sinq::dtype::i32, square}).quantized());
  CHECK(p({"a", sinq::dtype::f64, column}).quantized());
}

TEST_CASE("rules: exclude beats include, include beats the default, the last width counts") {
  const auto p = plan({"lm_head", "q_proj"}, {"q_proj"}, {{"layers\\.0\\.", 8}, {"v_proj", 3}});
  CHECK(bits(p, "lm_head.weight") == 4);
  CHECK(bits(p, "layers.1.q_proj.weight") == 0);
  CHECK(bits(p, "layers.0.k_proj.weight") == 8);
  CHECK(bits(p, "layers.0.v_proj.weight") == 3);
}

TEST_CASE("rules that cannot be are refused by their text") {
  const auto bad = sinq::quantization_plan::make(4, {"(unclosed"});
  REQUIRE_FALSE(bad);
  CHECK(bad.error().message.find("\"(unclosed\"") != std::string::npos);
  CHECK_FALSE(sinq::quantization_plan::make(7));
  const auto width = sinq::quantization_plan::make(4, {}, {}, {{"x", 9}});
  REQUIRE_FALSE(width);
  CHECK(width.error().message.find("bits for \"x\" is 9") != std::string::npos);
}

TEST_CASE("a name too long for the matcher is left alone instead of crashing it") {
  CHECK_FALSE(plan({".*"})({std::string(1 << 20, 'a'), sinq::dtype::f32, square}).quantized());
}
