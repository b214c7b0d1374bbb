/// sinq quantize --refine self on tiny models of tests/golden/engine.

#include "tool/language_model.hpp"

#include <map>

using namespace sinq_test;
using nlohmann::json;

namespace {

/// All tensors of a file, by name.
std::map<std::string, std::string> all_tensors(const fs::path& path) {
  const auto file = value_of(sinq::io::safetensors_file::open(path));
  std::map<std::string, std::string> found;
  for (const auto& tensor : file.tensors()) {
    const auto bytes = file.data(tensor);
    found.emplace(tensor.name, std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  }
  return found;
}

/// Quantizes a model to 4 bits in groups of 32 with 512 tokens of its own, if these options say nothing else.
fs::path refined(const fs::path& model, const fs::path& to, const std::vector<std::string>& options = {}) {
  std::vector<std::string> arguments{"quantize", model.string(),    "-o",  to.string(), "--refine",
                                     "self",     "--refine-tokens", "512", "--quiet"};
  if (std::find(options.begin(), options.end(), "--preset") == options.end())
    arguments.insert(arguments.end(), {"--group-size", "32"});
  arguments.insert(arguments.end(), options.begin(), options.end());
  run_well(arguments);
  return to / "model.safetensors";
}

/// Names of tensors that are not the same in both, or in one alone.
std::vector<std::string> differing(const fs::path& one, const fs::path& other) {
  const auto a = all_tensors(one), b = all_tensors(other);
  std::vector<std::string> names;
  for (const auto& [name, bytes] : a)
    if (!b.contains(name) || b.at(name) != bytes) names.push_back(name);
  for (const auto& [name, bytes] : b)
    if (!a.contains(name)) names.push_back(name);
  return names;
}

bool any_of(const std::vector<std::string>& names, const std::string& has) {
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return name.find(has) != std::string::npos; });
}

} // namespace

TEST_CASE("refined by itself in float order a model is what calibrate and quantize make of it") {
  const scratch dir;
  for (const std::string name : {"llama", "qwen3"}) {
    CAPTURE(name);
    const fs::path model = make_language_model(dir / name, name), moments = dir / (name + "-moments");
    run_well({"calibrate", model.string(), "--self", "--full", "--tokens", "512", "-o", moments.string(), "--quiet"});
    run_well({"quantize", model.string(), "-o", (dir / (name + "-two")).string(), "--refine", moments.string(),
              "--group-size", "32", "--quiet"});
    const fs::path two = dir / (name + "-two") / "model.safetensors";
    CHECK(differing(refined(model, dir / (name + "-one"), {"--refine-order", "float"}), two).empty());
    CHECK(differing(refined(model, dir / (name + "-unasked")), two).empty());
    CHECK_FALSE(differing(refined(model, dir / (name + "-seed"), {"--refine-seed", "2"}), two).empty());
  }
}

TEST_CASE("behind quantized layers other inputs are measured than behind float ones, but for the first") {
  const scratch dir;
  const fs::path model = make_language_model(dir / "model", "llama");
  const fs::path quantized = refined(model, dir / "quantized", {"--refine-order", "quantized"});
  CHECK(differing(quantized, refined(model, dir / "again", {"--refine-order", "quantized"})).empty());
  CHECK(read_file(quantized) == read_file(dir / "again" / "model.safetensors"));
  const auto others = differing(quantized, refined(model, dir / "float", {"--refine-order", "float"}));
  for (const char* const first : {"layers.0.self_attn.q_proj", "layers.0.self_attn.k_proj", "layers.0.self_attn.v_proj",
                                  "norm", "embed_tokens", "bias"})
    CHECK_FALSE(any_of(others, first));
  for (const char* const later : {"layers.0.self_attn.o_proj", "layers.0.mlp.gate_proj", "layers.0.mlp.up_proj",
                                  "layers.0.mlp.down_proj", "layers.1.self_attn.q_proj", "layers.1.mlp.down_proj"})
    CHECK(any_of(others, later));
}

TEST_CASE("refining by itself respects which tensors are quantized, and how") {
  const scratch dir;
  const fs::path model = make_language_model(dir / "model", "llama");
  const fs::path report = dir / "report.json";
  const fs::path chosen = refined(model, dir / "chosen",
                                  {"--exclude", R"(layers\.1\.mlp|layers\.0\.self_attn\.k)", "--bits-for", "o_proj=8",
                                   "--include", "embed_tokens", "--json", report.string()});
  const auto before = all_tensors(model / "model.safetensors"), after = all_tensors(chosen);
  for (const std::string kept : {"model.layers.1.mlp.down_proj.weight", "model.layers.0.self_attn.k_proj.weight"})
    CHECK(after.at(kept) == before.at(kept));
  // in the order of the input, whatever the order of the work
  const json document = json::parse(read_file(report));
  CHECK(document["options"]["refine_order"] == "float");
  CHECK(document["options"]["refine_tokens"] == 512);
  const auto input = value_of(sinq::io::model_reader::open(model));
  REQUIRE(document["tensors"].size() == input.tensors().size());
  for (std::size_t n = 0; n < input.tensors().size(); ++n) {
    const json& entry = document["tensors"][n];
    const std::string name = entry["name"];
    CAPTURE(name);
    CHECK(name == input.tensors()[n].info.name);
    if (entry["quantized"].get<bool>()) CHECK(entry["bits"] == (name.find("o_proj") == std::string::npos ? 4 : 8));
    CHECK(entry["quantized"].get<bool>() != after.contains(name));
  }
  run_well({"verify", (dir / "chosen").string(), "--against", model.string()});
  // what no layer of the decoder is, is quantized as without it
  run_well({"quantize", model.string(), "-o", (dir / "plain").string(), "--include", "embed_tokens", "--group-size",
            "32", "--quiet"});
  CHECK_FALSE(any_of(differing(chosen, dir / "plain" / "model.safetensors"), "embed_tokens"));

  for (const std::vector<std::string>& options : {std::vector<std::string>{"--preset", "4.5"},
                                                  {"--method", "gptq"},
                                                  {"--method", "rtn", "--no-feedback"},
                                                  {"--layout", "panels"},
                                                  {"--format", "official"}}) {
    CAPTURE(options);
    const fs::path to = dir / options.back();
    refined(model, to, options);
    run_well({"verify", to.string(), "--against", model.string()});
  }
}

TEST_CASE("what cannot refine itself is refused before anything is written") {
  const scratch dir;
  const fs::path model = make_language_model(dir / "model", "llama"), out = dir / "out";
  const auto refused = [&](const fs::path& which, const std::vector<std::string>& options,
                           const std::vector<std::string>& pieces) {
    std::vector<std::string> arguments{"quantize", which.string(), "-o", out.string(), "--group-size", "32", "--quiet"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    run_badly(arguments, pieces);
    CHECK_FALSE(fs::exists(out));
  };
  const std::vector<std::string> self{"--refine", "self"};
  refused(model / "model.safetensors", self, {"--refine self needs a language model's directory", "is a file"});
  const fs::path gpt = make_language_model(dir / "gpt", "llama");
  json config = json::parse(read_file(gpt / "config.json"));
  config["model_type"] = "gpt2";
  write_file(gpt / "config.json", config.dump());
  refused(gpt, self, {"--refine self: ", "config.json", "gpt2"});
  const fs::path silent = make_language_model(dir / "silent", "llama");
  fs::remove(silent / "tokenizer.json");
  refused(silent, self, {"--refine self: ", "tokenizer.json"});
  refused(silent, {"--refine", "self", "--dry-run"}, {"--refine self: ", "tokenizer.json"});
  const fs::path deep = make_language_model(dir / "deep", "llama");
  config["model_type"] = "llama";
  config["num_hidden_layers"] = 3;
  write_file(deep / "config.json", config.dump());
  refused(deep, self, {"--refine self: ", "no tensor", "model.layers.2.self_attn.q_proj.weight"});
  refused(model, {"--refine", "weights", "--refine-order", "float"}, {"are options of --refine self"});
  refused(model, {"--refine", "self", "--compat", "official"}, {"has no refinement"});
  refused(model, {"--refine", "self", "--method", "gptq", "--include", "embed_tokens"}, {"embed_tokens", "--moments"});
  run_badly({"quantize", model.string(), "-o", out.string(), "--refine-order", "float"}, {"--refine"}, 0);
  run_badly({"compare", (model / "model.safetensors").string(), "--refine", "self"}, {"--refine self is of sinq"});
}
