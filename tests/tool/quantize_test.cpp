/// sinq quantize on files and directories: what is quantized, how, and that the bytes do not depend on threads.

#include "tool/tool.hpp"

#include <sinq/io/checkpoint.hpp>

#include <nlohmann/json.hpp>

using namespace sinq_test;
using sinq::dtype;

namespace {

sinq::io::checkpoint open_checkpoint(const fs::path& path) {
  return value_of(sinq::io::checkpoint::open(path));
}

/// Bits of each quantized tensor, by name.
std::map<std::string, int> widths(const fs::path& path) {
  const auto opened = open_checkpoint(path);
  std::map<std::string, int> found;
  for (const auto& tensor : opened.tensors())
    if (tensor.quantized) found[tensor.name] = opened.packed(tensor).format.bits;
  return found;
}

nlohmann::json read_json(const fs::path& path) {
  return nlohmann::json::parse(read_file(path));
}

const std::string q0 = "model.layers.0.self_attn.q_proj.weight";
const std::string down = "model.layers.0.mlp.down_proj.weight";
const std::string q1 = "model.layers.1.self_attn.q_proj.weight";

} // namespace

TEST_CASE("the bytes are the same for any number of threads") {
  const scratch dir;
  const std::string in = make_model(dir / "in", usual_tensors()).string();
  const std::string in_dir = make_directory(dir / "in_dir", usual_tensors(), 20000).string();
  for (const char* const method : {"rtn", "sinq"}) {
    std::vector<std::string> files;
    for (const char* const threads : {"1", "2", "3", "1"}) {
      const std::string out = (dir / ("out" + std::to_string(files.size()) + method)).string();
      run_well({"quantize", in, "-o", out, "--method", method, "--threads", threads, "--bits", "3"});
      files.push_back(read_file(out));
      run_well({"quantize", in_dir, "-o", out + "_dir", "--method", method, "--threads", threads, "--bits", "3"});
      CHECK(names_in(out + "_dir") == names{"config.json", "model.safetensors", "tokenizer.json"});
      files.back() += read_file(out + "_dir/model.safetensors");
    }
    for (const std::string& file : files) CHECK((file == files[0]));
  }
}

TEST_CASE("embeddings, norms, heads and integers stay, and the rules change that") {
  const scratch dir;
  const std::string in = make_model(dir / "in", usual_tensors()).string();
  const std::string out = (dir / "out").string();
  using found = std::map<std::string, int>;
  const auto quantize = [&](const std::vector<std::string>& options) {
    std::vector<std::string> arguments{"quantize", in, "-o", out};
    arguments.insert(arguments.end(), options.begin(), options.end());
    run_well(arguments);
    return widths(out);
  };
  CHECK(quantize({}) == found{{q0, 4}, {down, 4}, {q1, 4}});
  CHECK(quantize({"--bits", "3"}) == found{{q0, 3}, {down, 3}, {q1, 3}});
  CHECK(quantize({"--exclude", "layers\\.1"}) == found{{q0, 4}, {down, 4}});
  CHECK(quantize({"--exclude", "layers\\.1", "--exclude", "down"}) == found{{q0, 4}});
  CHECK(quantize({"--include", "lm_head"}) == found{{q0, 4}, {down, 4}, {q1, 4}, {"lm_head.weight", 4}});
  CHECK(quantize({"--include", "lm_head", "--include", "embed"}).size() == 5);
  CHECK(quantize({"--bits-for", "q_proj=3", "--bits-for", "layers\\.1=8"}) == found{{q0, 3}, {down, 4}, {q1, 8}});
  CHECK(quantize({"--bits-for", "(?=.*down)=2"}) == found{{q0, 4}, {down, 2}, {q1, 4}});
  const auto model = open_checkpoint(out);
  CHECK(model.tensors().size() == usual_tensors().size());
  for (const made_tensor& t : usual_tensors()) {
    INFO(t.name);
    const auto* copy = model.find(t.name);
    REQUIRE(copy != nullptr);
    CHECK(copy->type == t.type);
    CHECK(copy->shape == t.shape);
    if (!copy->quantized) CHECK((text_of(model.data(*copy).span()) == t.bytes));
  }
  CHECK(model.model().metadata().at("format") == "pt");
}

TEST_CASE("options reach the file") {
  const scratch dir;
  const std::string in = make_model(dir / "in", {weight("a.weight", dtype::f32, 40, 100)}).string();
  const std::string out = (dir / "out").string();
  run_well({"quantize", in, "-o", out, "--aux-dtype", "bf16", "--group-size", "48", "--symmetric", "--bits", "5"});
  const auto model = open_checkpoint(out);
  const sinq::matrix_format& f = model.packed(model.tensors()[0]).format;
  CHECK(f.aux == sinq::aux_dtype::bf16);
  CHECK(f.group_size == 48);
  CHECK_FALSE(f.has_zero);
  CHECK(f.bits == 5);
  run_well({"quantize", in, "-o", (dir / "zero").string(), "--iterations", "0"});
  run_well({"quantize", in, "-o", (dir / "rtn").string(), "--method", "rtn"});
  run_well({"dump", (dir / "zero").string(), "-o", (dir / "zero_dump").string()});
  run_well({"dump", (dir / "rtn").string(), "-o", (dir / "rtn_dump").string()});
  for (const char* const part : {"a.weight.codes", "a.weight.scale", "a.weight.zero", "a.weight.t"})
    CHECK(read_one(value_of(sinq::io::model_reader::open(dir / "zero_dump")), part).values ==
          read_one(value_of(sinq::io::model_reader::open(dir / "rtn_dump")), part).values);
}

TEST_CASE("a dry run writes nothing and foretells the sizes") {
  const scratch dir;
  const std::string in = make_directory(dir / "in", usual_tensors(), 20000).string();
  const std::vector<std::string> before = names_in(dir.root());
  for (const char* const method : {"rtn", "sinq"}) {
    const tool_run dry = run_well({"quantize", in, "--dry-run", "--method", method});
    CHECK(dry.out.find(q0) != std::string::npos);
    CHECK(dry.out.find("embedding") != std::string::npos);
    CHECK(dry.out.find("output head") != std::string::npos);
    CHECK(dry.out.find("not a floating type") != std::string::npos);
    run_well({"quantize", in, "-o", (dir / "out").string(), "--dry-run"});
    CHECK(names_in(dir.root()) == before);
    run_well({"quantize", in, "--dry-run", "--method", method, "--json", (dir / "dry.json").string()});
    run_well(
        {"quantize", in, "-o", (dir / "out").string(), "--method", method, "--json", (dir / "real.json").string()});
    const auto planned = read_json(dir / "dry.json");
    const auto real = read_json(dir / "real.json");
    REQUIRE(planned["tensors"].size() == real["tensors"].size());
    for (std::size_t i = 0; i < planned["tensors"].size(); ++i)
      CHECK(planned["tensors"][i]["bytes_after"] == real["tensors"][i]["bytes_after"]);
    CHECK(real["totals"]["quantized"] == 3);
    CHECK(real["totals"]["worst_relative_error"].get<double>() < 0.2);
    CHECK(real["totals"]["bits_per_weight"].get<double>() > 4.0);
    fs::remove_all(dir / "out");
    fs::remove(dir / "dry.json");
    fs::remove(dir / "real.json");
  }
}

TEST_CASE("quiet is quiet, and reports are tables") {
  const scratch dir;
  const std::string in = make_model(dir / "in", usual_tensors()).string();
  CHECK(run_well({"quantize", in, "-o", (dir / "out").string(), "--quiet"}).out.empty());
  const std::string table = run_well({"quantize", in, "-o", (dir / "out").string()}).out;
  for (const char* const row :
       {"tensors quantized", "bits per weight", "relative error, worst", "Gparam/s", "peak memory"})
    CHECK(table.find(row) != std::string::npos);
  run_well({"compare", in, "--bits", "4", "--bits", "3", "--json", (dir / "c.json").string()});
  const auto compared = read_json(dir / "c.json");
  CHECK(compared["mean"].size() == 4);
  CHECK(compared["tensors"].size() == 12);
  CHECK(compared["mean"][1]["column_normalized_error_of_rtn"].get<double>() < 1.0);
  CHECK(run_well({"compare", in, "--tensor", q1, "--json", (dir / "c.json").string()}).out.find(q0) ==
        std::string::npos);
  CHECK(read_json(dir / "c.json")["tensors"].size() == 2);
  run_well({"compare", in, "--tensor", "lm_head|embed", "--json", (dir / "c.json").string()});
  CHECK(read_json(dir / "c.json")["tensors"].size() == 4);
  run_well({"inspect", (dir / "out").string(), "--json", (dir / "i.json").string()});
  CHECK(read_json(dir / "i.json")["totals"]["quantized"] == 3);
  CHECK(run_well({"inspect", in}).out.find("model.positions") != std::string::npos);
  CHECK(run_well({"--version"}).out.starts_with("sinq "));
  CHECK(run_well({"--help"}).out.find("sinq quantize") != std::string::npos);
}

TEST_CASE("a signal ends the work with status 130 and leaves nothing") {
  const scratch dir;
  const std::string in = make_model(dir / "in", {weight("a.weight", dtype::f32, 4000, 4096)}).string();
  for (const char* const signal : {"INT", "TERM"}) {
    const tool_run run = run_tool({"quantize", in, "-o", (dir / "out").string(), "--threads", "1"},
                                  std::string{"timeout --foreground --signal="} + signal + " 0.2 ");
    if (run.status == 124) CHECK(run.err == "sinq: error: cancelled\n"); // what timeout makes of our 130
    if (run.status == 0) SINQ_SKIP("the work was done before the signal came");
    CHECK(run.status == 124);
    CHECK(names_in(dir.root()) == names{"in"});
  }
}
