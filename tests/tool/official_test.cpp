/// The official format and the official door's results, through the tool.

#include "golden/golden.hpp"
#include "tool/tool.hpp"

#include <sinq/io/model_reader.hpp>

#include <nlohmann/json.hpp>

using namespace sinq_test;
using nlohmann::json;

namespace {

constexpr const char* config_text =
    R"({"model_type": "llama", "dtype": "float32", "head_dim": 16, "hidden_size": 64, "rope_theta": 10000.0})";

/// A directory as Hugging Face has it, but for its sizes; columns are multiples of 64.
fs::path make_llama(const fs::path& path) {
  using sinq::dtype;
  auto writer = value_of(sinq::io::model_writer::create_directory(path));
  require_ok(writer.write_side_file("config.json", as_bytes(config_text)));
  require_ok(writer.write_side_file("tokenizer.json", as_bytes("{}\n")));
  add_all(writer, {weight("model.embed_tokens.weight", dtype::bf16, 40, 64, 1),
                   weight("model.layers.0.self_attn.q_proj.weight", dtype::bf16, 33, 64, 2),
                   float_tensor("model.layers.0.self_attn.q_proj.bias", dtype::bf16, {33}, some_weights(1, 33, 8)),
                   weight("model.layers.0.mlp.down_proj.weight", dtype::f16, 64, 192, 3),
                   float_tensor("model.layers.0.input_layernorm.weight", dtype::bf16, {65}, some_weights(1, 65, 5)),
                   weight("lm_head.weight", dtype::bf16, 40, 64, 7)});
  return path;
}

std::string text(const fs::path& path) {
  return path.string();
}

} // namespace

TEST_CASE("the tool writes the official format, and every command reads it") {
  const scratch dir;
  const fs::path input = make_llama(dir / "in");
  for (const char* const bits : {"2", "3", "4", "5", "6"}) {
    run_well({"quantize", text(input), "-o", text(dir / "out"), "--format", "official", "--bits", bits, "--quiet"});
    CHECK(names_in(dir / "out") == names{"config.json", "model-00001-of-00001.safetensors",
                                         "model.safetensors.index.json", "model.safetensors.index.json.meta.json",
                                         "tokenizer.json"});
    run_well({"verify", text(dir / "out"), "--against", text(input)});
    run_well({"inspect", text(dir / "out"), "--json", text(dir / "list.json")});
    CHECK(json::parse(read_file(dir / "list.json")).at("totals").at("quantized") == 2);
    run_well({"dump", text(dir / "out"), "-o", text(dir / "raw.safetensors")});
    run_well({"dequantize", text(dir / "out"), "-o", text(dir / "plain"), "--quiet"});
    const auto plain = value_of(sinq::io::model_reader::open(dir / "plain"));
    const auto original = value_of(sinq::io::model_reader::open(input));
    REQUIRE(plain.tensors().size() == original.tensors().size());
    for (const auto& tensor : original.tensors()) {
      const auto* const found = plain.find(tensor.info.name);
      REQUIRE(found != nullptr);
      CHECK(found->info.type == tensor.info.type);
      CHECK(found->info.shape == tensor.info.shape);
    }
    CHECK(json::parse(read_file(dir / "plain/config.json")) == json::parse(config_text));
    CHECK(names_in(dir / "plain") == names{"config.json", "model.safetensors", "tokenizer.json"});
    fs::remove_all(dir / "plain");
  }
}

TEST_CASE("both formats hold the same weights") {
  const scratch dir;
  const fs::path input = make_llama(dir / "in");
  for (const char* const method : {"sinq", "rtn"}) {
    for (const char* const format : {"native", "official"}) {
      run_well({"quantize", text(input), "-o", text(dir / format), "--format", format, "--method", method, "--quiet"});
      run_well({"dequantize", text(dir / format), "-o", text(dir / (std::string{"plain-"} + format)), "--dtype", "f32",
                "--quiet"});
    }
    const auto a = value_of(sinq::io::model_reader::open(dir / "plain-native"));
    const auto b = value_of(sinq::io::model_reader::open(dir / "plain-official"));
    for (const auto& tensor : a.tensors()) {
      CAPTURE(tensor.info.name);
      const read_tensor x = read_one(a, tensor.info.name);
      const read_tensor y = read_one(b, tensor.info.name);
      CHECK(x.type == y.type);
      CHECK(x.values == y.values);
    }
    CHECK(read_one(a, "model.layers.0.mlp.down_proj.weight").type == sinq::dtype::f32);
    CHECK(read_one(a, "lm_head.weight").type == sinq::dtype::bf16);
  }
}

TEST_CASE("what the official format cannot hold is told before anything is written") {
  const scratch dir;
  const std::string input = text(make_llama(dir / "in"));
  const std::string out = text(dir / "out");
  const auto refused = [&](const std::vector<std::string>& flags, const std::vector<std::string>& says) {
    std::vector<std::string> arguments{"quantize", input, "-o", out, "--format", "official"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    run_badly(arguments, says);
    CHECK_FALSE(fs::exists(out));
  };
  refused({"--bits", "8"}, {"q_proj.weight", "bits is 8, expected 2, 3, 4, 5 or 6"});
  refused({"--group-size", "128"}, {"q_proj.weight", "group_size is 128", "64 columns"});
  refused({"--aux-dtype", "f32"}, {"q_proj.weight", "F32, expected F16"});
  refused({"--include", "embed_tokens"}, {"model.embed_tokens.weight", "embeddings"});
  run_badly({"quantize", text(dir / "in/model.safetensors"), "-o", out, "--format", "official"},
            {"model.safetensors", "config.json"});
  run_well({"quantize", input, "-o", out, "--format", "official", "--quiet"});
  run_badly({"quantize", out, "-o", text(dir / "again")}, {"is quantized already"});
}

TEST_CASE("compat official through the tool agrees with the official door") {
  const scratch dir;
  for (const char* const method : {"official_sinq", "official_sinq_quantAux"})
    for (const golden_case& c : cases(SINQ_TEST_DATA_DIR, method)) {
      INFO(c.path.string());
      const bool aux = c.method == "official_sinq_quantAux";
      const std::string input = (c.path.parent_path() / ("input_" + c.input + ".safetensors")).string();
      const std::string quantized = text(dir / "q.safetensors");
      run_well({"quantize", input, "-o", quantized, "--include", "w", "--exclude", "x", "--compat",
                aux ? "official-aux" : "official", "--bits", std::to_string(c.bits_or_iterations)});
      run_well({"dump", quantized, "-o", text(dir / "d.safetensors")});
      const auto model = value_of(sinq::io::model_reader::open(dir / "d.safetensors"));
      const auto golden = open(c.path);
      const std::size_t allowed = c.input == "outlier" ? 2 : 0; // groups at a rounding tie of the gate's way back
      const auto differing = [](const std::vector<float>& a, const std::vector<float>& b) {
        REQUIRE(a.size() == b.size());
        std::size_t count = 0;
        for (std::size_t n = 0; n < a.size(); ++n) count += a[n] != b[n] ? 1 : 0;
        return count;
      };
      CHECK(read_one(model, "w.t").values == read(golden, "t").values);
      CHECK(differing(read_one(model, "w.scale").values, read(golden, aux ? "scale.value" : "scale").values) <=
            allowed);
      CHECK(differing(read_one(model, "w.zero").values, read(golden, aux ? "zero.value" : "zero").values) <= allowed);
      const bool gated = model.metadata().at("w").find("gated") != std::string::npos;
      CHECK(gated == (c.input == "outlier"));
    }
}
