/// sinq quantize on files and directories: what is quantized, how, and that the bytes do not depend on threads.

#include "io/open_checkpoint.hpp"
#include "tool/tool.hpp"

#include <nlohmann/json.hpp>

using namespace sinq_test;
using sinq::dtype;

namespace {

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
  run_well({"quantize", in, "-o", (dir / "zero").string(), "--iterations", "0", "--refine", "none"});
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
  const std::string found = (dir / "c.json").string();
  run_well({"compare", in, "--bits", "4", "--bits", "3", "--json", found});
  const auto compared = read_json(found);
  CHECK(compared["mean"].size() == 12); // rtn, hqq, sinq, sinq_hqq, and nf4 or nf3 alone and with sinq
  CHECK(compared["tensors"].size() == 36);
  CHECK(compared["mean"][3]["method"] == "sinq");
  CHECK(compared["mean"][3]["column_normalized_error_of_rtn"].get<double>() < 1.0);
  CHECK(run_well({"compare", in, "--tensor", q1, "--json", found}).out.find(q0) == std::string::npos);
  CHECK(read_json(found)["tensors"].size() == 6);
  run_well({"compare", in, "--tensor", "lm_head|embed", "--method", "sinq", "--method", "nf3", "--json", found});
  CHECK(read_json(found)["tensors"].size() == 2);
  CHECK(read_json(found)["mean"][0]["relative_error_of_rtn"].is_null());
  run_well({"inspect", (dir / "out").string(), "--json", (dir / "i.json").string()});
  CHECK(read_json(dir / "i.json")["totals"]["quantized"] == 3);
  CHECK(run_well({"inspect", in}).out.find("model.positions") != std::string::npos);
  CHECK(run_well({"--version"}).out.starts_with("sinq "));
  CHECK(run_well({"--help"}).out.find("sinq quantize") != std::string::npos);
}

TEST_CASE("methods with a width, levels, tiles or inputs of their own are told of them and say what they miss") {
  const scratch dir;
  const std::string in = make_model(dir / "in.safetensors", {weight("a.weight", dtype::f32, 40, 96)}).string();
  const std::string out = (dir / "out.safetensors").string();
  const std::string found = (dir / "i.json").string();
  const auto quantized = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments{"quantize", in, "-o", out, "--quiet"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    run_well(arguments);
    run_well({"verify", out, "--against", in});
    run_well({"inspect", out, "--json", found});
    return read_json(found)["tensors"][0];
  };
  CHECK(quantized({"--method", "nf3"})["bits"] == 3);
  CHECK(quantized({"--method", "sinq_nf4", "--shift", "none"})["symmetric"] == true);
  CHECK(quantized({"--method", "hadamard_rtn"})["method"] == "hadamard_rtn");
  CHECK(quantized({"--tile", "32"})["group_size"] == 32);
  CHECK(quantized({"--method", "codebook", "--bits", "2", "--levels", "-1,-0.2", "--levels", "0.3,1"})["bits"] == 2);
  const auto moments =
      make_model(dir / "m.safetensors", {float_tensor("a.mean_abs", dtype::f32, {96}, std::vector<float>(96, 1.0f)),
                                         float_tensor("a.inputs", dtype::f32, {20, 96}, some_weights(20, 96, 9))})
          .string();
  for (const char* const method : {"awq", "asinq", "asinq_l1"})
    CHECK(quantized({"--method", method, "--moments", moments})["method"] == method);
  run_well({"compare", in, "--method", "awq", "--method", "rtn", "--moments", moments, "--json", found});
  CHECK(read_json(found)["mean"].size() == 2);

  fs::remove(out);
  run_badly({"quantize", in, "-o", out, "--method", "nf4", "--bits", "3"}, {"a.weight", "expected 4"});
  run_badly({"quantize", in, "-o", out, "--method", "codebook"}, {"0 levels", "expected 16"});
  run_badly({"quantize", in, "-o", out, "--method", "codebook", "--bits", "2", "--levels", "0,1,2,3"},
            {"both sides of 0"});
  run_badly({"quantize", in, "-o", out, "--method", "hqq", "--symmetric"}, {"stores zero points"});
  run_badly({"quantize", in, "-o", out, "--tile", "32", "--group-size", "32"}, {"--tile"}, 0);
  run_badly({"quantize", in, "-o", out, "--method", "awq"}, {"a.weight", "--moments"});
  run_badly({"quantize", in, "-o", out, "--method", "awq", "--moments", in}, {"a.weight", "has no a.second_moment"});
  run_badly({"quantize", in, "-o", out, "--method", "awq", "--moments", (dir / "none").string()}, {"none"});
  run_badly({"compare", in, "--method", "awq"}, {"none of the methods"});
  CHECK_FALSE(fs::exists(out));
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

TEST_CASE("SINQ_ISA forces an instruction set, gives the same file, and refuses an unknown one") {
  const scratch dir;
  const std::string in = make_model(dir / "in", usual_tensors()).string();
  std::vector<std::string> files;
  for (const std::string isa : {"", "scalar"}) {
    const std::string out = (dir / ("out" + isa)).string();
    const tool_run run = run_tool({"quantize", in, "-o", out, "--quiet"}, "SINQ_ISA=" + isa + " ");
    INFO(run.err);
    REQUIRE(run.status == 0);
    files.push_back(read_file(out));
  }
  CHECK((files[0] == files[1]));
  const tool_run refused = run_tool({"quantize", in, "-o", (dir / "none").string()}, "SINQ_ISA=mmx ");
  CHECK(refused.status == 1);
  for (const char* const piece : {"sinq: error: SINQ_ISA", "mmx", "scalar"})
    CHECK(refused.err.find(piece) != std::string::npos);
  CHECK_FALSE(fs::exists(dir / "none"));
}
