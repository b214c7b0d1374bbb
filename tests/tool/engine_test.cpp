/// sinq run, perplexity and compare-models on tiny models of tests/golden/engine.

#include "tool/language_model.hpp"

#include <cmath>

using namespace sinq_test;
using nlohmann::json;

namespace {

/// exp of the mean of -log p of what follows each token of a sequence, in double.
double perplexity_of(const expectation& e) {
  double sum = 0;
  for (std::size_t s = 0; s < e.sequences; ++s)
    for (std::size_t i = 0; i + 1 < e.length; ++i) {
      const std::span<const float> row = e.of(s).row(i);
      double all = 0;
      for (const float logit : row) all += std::exp(double{logit});
      sum += std::log(all) - double{row[static_cast<std::size_t>(e.tokens[s][i + 1])]};
    }
  return std::exp(sum / static_cast<double>(e.sequences * (e.length - 1)));
}

} // namespace

TEST_CASE("perplexity is that of the logits of transformers") {
  for (const std::string name : {"llama", "mistral", "qwen2", "qwen3"}) {
    CAPTURE(name);
    const scratch dir;
    const expectation expected{name};
    const fs::path model = make_language_model(dir / "model", name);
    write_file(dir / "text", spelled(expected));
    const tool_run run =
        run_well({"perplexity", model.string(), "--text", (dir / "text").string(), "--window", "24", "--quiet"});
    // logits may be off by 2e-5 (tests/engine), log-probabilities by twice that; four digits behind the point are
    // printed
    CHECK(std::fabs(number_after(run.out, "perplexity ") - perplexity_of(expected)) <
          4e-5 * perplexity_of(expected) + 5e-5);
    CHECK(run.out.find("over 46 tokens in 2 windows of 24") != std::string::npos);
  }
}

TEST_CASE("a model is no distance from itself, and some from its quantized self, loaded or made on load") {
  const scratch dir;
  const expectation expected{"llama"};
  const std::string model = make_language_model(dir / "model", "llama").string(), text = (dir / "text").string();
  write_file(text, spelled(expected));
  const auto compare = [&](const std::string& a, const std::vector<std::string>& options) {
    std::vector<std::string> arguments{"compare-models", a,    "--against",   model,   "--text", text,
                                       "--window",       "24", "--precision", "exact", "--quiet"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    return run_well(arguments).out;
  };
  const std::string same = compare(model, {});
  CHECK(number_after(same, "KL ") == 0);
  CHECK(number_after(same, "flips ") == 0);
  CHECK(number_after(same, "overlap ") == 100);
  const std::string rough = compare(model, {"--method", "rtn", "--bits", "3", "--group-size", "32"});
  const std::string fine = compare(model, {"--method", "rtn", "--bits", "8", "--group-size", "32"});
  CHECK(number_after(rough, "KL ") > 10 * number_after(fine, "KL "));
  CHECK(number_after(rough, "flips ") > 0);

  run_well({"quantize", model, "-o", (dir / "made").string(), "--method", "rtn", "--bits", "3", "--group-size", "32",
            "--quiet"});
  const std::string loaded = compare((dir / "made").string(), {});
  CHECK(number_after(loaded, "KL ") == number_after(rough, "KL "));
}

namespace {

/// The mean of a list of numbers.
double mean_of(const json& numbers) {
  double sum = 0;
  for (const json& number : numbers) sum += number.get<double>();
  return sum / static_cast<double>(numbers.size());
}

} // namespace

TEST_CASE("reports on windows say what is printed, and each window's part of it") {
  const scratch dir;
  const expectation expected{"llama"};
  const std::string model = make_language_model(dir / "model", "llama").string(), text = (dir / "text").string();
  const std::string rough = (dir / "rough").string(), fine = (dir / "fine").string(), to = (dir / "report").string();
  write_file(text, spelled(expected));
  const std::vector<std::string> on_text{"--text", text, "--window", "24", "--quiet", "--json", to};
  const auto report_of = [&](std::vector<std::string> arguments, std::string& out) {
    arguments.insert(arguments.end(), on_text.begin(), on_text.end());
    out = run_well(arguments).out;
    return json::parse(read_file(to));
  };
  // four or five digits behind the point are printed
  constexpr double printed = 0.5e-4;

  std::string out;
  const json scored = report_of({"perplexity", model}, out);
  CHECK(scored["command"] == "perplexity");
  CHECK(scored["model"] == model);
  CHECK(scored["tokens"] == 46);
  CHECK(scored["windows"] == 2);
  CHECK(std::fabs(scored["perplexity"].get<double>() - number_after(out, "perplexity ")) <= printed);
  CHECK(std::fabs(scored["perplexity_standard_error"].get<double>() - number_after(out, "+- ")) <= printed);
  REQUIRE(scored["each_window"]["nll"].size() == 2);
  CHECK(std::fabs(std::log(scored["perplexity"].get<double>()) - mean_of(scored["each_window"]["nll"])) < 1e-12);

  for (const auto& [made, bits] : {std::pair{rough, "3"}, std::pair{fine, "8"}})
    run_well({"quantize", model, "-o", made, "--method", "rtn", "--bits", bits, "--group-size", "32", "--quiet"});
  const json both = report_of({"compare-models", rough, fine, "--against", model, "--precision", "exact"}, out);
  CHECK(both["against"]["model"] == model);
  CHECK(both["against"]["each_window"]["nll"] == scored["each_window"]["nll"]);
  REQUIRE(both["models"].size() == 2);
  for (const auto& [found, made] : {std::pair{both["models"][0], rough}, std::pair{both["models"][1], fine}}) {
    CHECK(found["model"] == made);
    const std::string line = out.substr(out.find(made + ": perplexity"));
    CHECK(std::fabs(found["perplexity"].get<double>() - number_after(line, "perplexity ")) <= printed);
    CHECK(std::fabs(found["kl"].get<double>() - number_after(line, "KL ")) <= printed);
    CHECK(std::fabs(100 * found["flips"].get<double>() - number_after(line, "flips ")) <= 100 * printed);
    CHECK(std::fabs(100 * found["top5_overlap"].get<double>() - number_after(line, "overlap ")) <= 100 * printed);
    for (const char* const part : {"kl", "flips"}) {
      REQUIRE(found["each_window"][part].size() == 2);
      CHECK(std::fabs(mean_of(found["each_window"][part]) - found[part].get<double>()) < 1e-12);
    }
    // models that are compared together are each what it is alone
    std::string unread;
    const json alone = report_of({"compare-models", made, "--against", model, "--precision", "exact"}, unread);
    CHECK(alone["models"][0] == found);
  }
  CHECK(both["models"][0]["kl"] > 10 * both["models"][1]["kl"].get<double>());
}

TEST_CASE("a report on windows replaces neither the text nor a model") {
  const scratch dir;
  const fs::path model = make_language_model(dir / "model", "llama");
  const std::string text = (dir / "text").string(), config = (model / "config.json").string();
  write_file(text, spelled(expectation{"llama"}));
  const auto scored = [&](const std::string& report) {
    return std::vector<std::string>{"perplexity", model.string(), "--text", text, "--window", "24", "--json", report};
  };
  run_badly(scored(text), {"the JSON report is the same file as the text"});
  run_badly(scored(config), {"config.json", "same file"});
  CHECK(read_file(text) == spelled(expectation{"llama"}));
  CHECK(json::parse(read_file(config))["model_type"] == "llama");
}

TEST_CASE("run writes the tokens of transformers") {
  const scratch dir;
  const std::string model = make_language_model(dir / "model", "llama").string();
  const expectation golden{"llama"};
  const std::string expected = spelled(golden.continuation[0]), prompt = spelled(golden.tokens[0]);
  const std::vector<std::string> greedy{"run", model, "--prompt", prompt, "-n", "12", "--cache", "f32", "--quiet"};
  CHECK(run_well(greedy).out == expected + "\n");
  const auto drawn = [&](const std::string& seed) {
    return run_well({"run", model, "-p", prompt, "-n", "12", "--temperature", "1.5", "--seed", seed, "--quiet"}).out;
  };
  CHECK(drawn("1") == drawn("1"));
  CHECK(drawn("1") != drawn("2"));
  const tool_run told = run_tool({"run", model, "-p", prompt, "-n", "3"});
  CHECK(told.err.find("prompt: 24 tokens") != std::string::npos);
  CHECK(told.err.find("generation: 3 tokens") != std::string::npos);
}

TEST_CASE("calibrate writes moments that quantize takes") {
  const scratch dir;
  const std::string model = make_language_model(dir / "model", "llama").string(), text = (dir / "text").string();
  write_file(text, spelled(expectation{"llama"}));
  for (const std::vector<std::string>& kind :
       {std::vector<std::string>{"--text", text, "--window", "24"}, {"--self"}, {"--random", "--window", "16"}}) {
    INFO(kind.front());
    const std::string moments = (dir / (kind.front().substr(2) + ".safetensors")).string();
    std::vector<std::string> arguments{"calibrate", model, "-o", moments, "--tokens", "48", "--full", "--quiet"};
    arguments.insert(arguments.end(), kind.begin(), kind.end());
    run_well(arguments);
    const auto file = value_of(sinq::io::safetensors_file::open(moments));
    const auto* const hessian = file.find("model.layers.1.mlp.down_proj.hessian");
    REQUIRE(hessian != nullptr);
    CHECK(hessian->shape == std::vector<std::size_t>{96, 96});
    run_well({"quantize", model, "-o", moments + ".out", "--refine", moments, "--group-size", "32", "--quiet"});
  }
  run_badly({"calibrate", model, "-o", (dir / "none").string()}, {"one of --text FILE, --self and --random"});
  run_badly({"calibrate", model, "-o", (dir / "none").string(), "--text", text}, {"has 48 tokens", "512"});
  CHECK_FALSE(fs::exists(dir / "none"));
}

TEST_CASE("models and prompts that cannot be run are named") {
  const scratch dir;
  const fs::path model = make_language_model(dir / "model", "llama");
  const auto run = [&](const fs::path& which, const std::vector<std::string>& options = {}) {
    std::vector<std::string> arguments{"run", which.string(), "--quiet"};
    if (options.empty()) arguments.insert(arguments.end(), {"-p", "abc"});
    arguments.insert(arguments.end(), options.begin(), options.end());
    return arguments;
  };
  run_badly(run(dir / "none"), {"none"});
  run_badly(run(model, {"-p", ""}), {"the prompt has no tokens"});
  run_badly(run(model, {"-p", "abcdef", "--context", "5"}), {"prompt has 6 tokens", "context of 5"});
  run_badly(run(model, {"-p", "abc", "--temperature", "-1"}), {"temperature"});
  run_badly(run(model, {"-p", "abc", "--chat"}), {"chat_template"});
  write_file(dir / "short", "abc");
  run_badly({"perplexity", model.string(), "--text", (dir / "short").string()}, {"short", "has 3 tokens", "512"});

  const auto changed = [&](const char* name, const char* key, const json& value) {
    const fs::path other = make_language_model(dir / name, "llama");
    json config = json::parse(read_file(other / "config.json"));
    config[key] = value;
    write_file(other / "config.json", config.dump());
    return other;
  };
  run_badly(run(changed("gpt", "model_type", "gpt2")), {"config.json", "gpt2", "expected llama"});
  run_badly(run(changed("deep", "num_hidden_layers", 3)), {"no tensor", "model.layers.2.input_layernorm.weight"});
  run_badly(run(changed("wide", "intermediate_size", 97)), {"mlp.gate_proj.bias", "[96]", "expected [97]"});
  const fs::path broken = make_language_model(dir / "broken", "llama");
  write_file(broken / "tokenizer.json", "{\"model\": 3}");
  run_badly(run(broken), {"tokenizer.json"});
}
