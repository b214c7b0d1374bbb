/// quantize, then dequantize, dump and verify.

#include "tool/tool.hpp"

#include <nlohmann/json.hpp>

#include <cstring>

using namespace sinq_test;
using sinq::dtype;

namespace {

constexpr std::array float_types{dtype::f64, dtype::f32, dtype::f16, dtype::bf16, dtype::f8_e4m3, dtype::f8_e5m2};

/// ||a - b|| / ||b||.
double distance(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double difference = 0;
  double size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    size += std::pow(static_cast<double>(b[i]), 2);
  }
  return size == 0 ? std::sqrt(difference) : std::sqrt(difference / size);
}

/// Every tensor of `original` is in `copy` with its type and shape; matrices close, the rest identical; nothing else
/// is.
void check_same_model(const fs::path& copy, const fs::path& original, double tolerance) {
  const auto a = value_of(sinq::io::model_reader::open(copy));
  const auto b = value_of(sinq::io::model_reader::open(original));
  CHECK(a.tensors().size() == b.tensors().size());
  CHECK(a.metadata() == b.metadata());
  for (const auto& file : a.files())
    for (const auto& tensor : file.tensors()) {
      CHECK_FALSE(sinq::io::is_padding(tensor.name));
      CHECK(tensor.begin % size_bytes(tensor.type) == 0); // as PyTorch's reader needs it
    }
  for (const auto& tensor : b.tensors()) {
    INFO(tensor.info.name);
    const auto* found = a.find(tensor.info.name);
    REQUIRE(found != nullptr);
    CHECK(found->info.type == tensor.info.type);
    CHECK(found->info.shape == tensor.info.shape);
    if (info(tensor.info.type).is_float)
      CHECK(distance(read_one(a, tensor.info.name).values, read_one(b, tensor.info.name).values) <= tolerance);
    else
      CHECK((text_of(a.data(*found).span()) == text_of(b.data(tensor).span())));
  }
}

} // namespace

TEST_CASE("dequantize gives the model back") {
  const scratch dir;
  const fs::path in = make_model(dir / "in", usual_tensors());
  const fs::path in_dir = make_directory(dir / "in_dir", usual_tensors(), 20000);
  REQUIRE(value_of(sinq::io::model_reader::open(in_dir)).files().size() > 1);
  for (const fs::path& input : {in, in_dir}) {
    const fs::path q = dir / (input.filename().string() + "_q");
    const fs::path back = dir / (input.filename().string() + "_back");
    run_well({"quantize", input.string(), "-o", q.string(), "--bits", "8"});
    run_well({"verify", q.string(), "--against", input.string(), "--max-relative-error", "0.01"});
    run_well({"dequantize", q.string(), "-o", back.string()});
    check_same_model(back, input, 0.01);
  }
  for (const char* const name : {"config.json", "tokenizer.json"}) {
    CHECK(read_file(dir / "in_dir_q" / name) == read_file(in_dir / name));
    CHECK(read_file(dir / "in_dir_back" / name) == read_file(in_dir / name));
  }
}

TEST_CASE("directories are sharded as asked, in and out") {
  const scratch dir;
  const fs::path in = make_directory(dir / "in", usual_tensors(), 20000);
  const fs::path whole = dir / "whole";
  const fs::path split = dir / "split";
  run_well({"quantize", in.string(), "-o", whole.string()});
  run_well({"quantize", in.string(), "-o", split.string(), "--shard-size", "6KB"});
  CHECK(fs::exists(whole / "model.safetensors"));
  CHECK(fs::exists(split / "model.safetensors.index.json"));
  CHECK(value_of(sinq::io::model_reader::open(split)).files().size() >= 3);
  run_well({"verify", split.string(), "--against", in.string()});
  for (const fs::path& q : {whole, split}) {
    const fs::path back = dir / (q.filename().string() + "_back");
    run_well({"dequantize", q.string(), "-o", back.string(), "--shard-size", "0.02MB"});
    CHECK(value_of(sinq::io::model_reader::open(back)).files().size() > 1);
    check_same_model(back, in, 0.15);
    run_well({"dump", q.string(), "-o", (dir / (q.filename().string() + "_dump")).string()});
  }
  // an earlier output is replaced, and nothing of it is left
  run_well({"quantize", in.string(), "-o", split.string()});
  CHECK(names_in(split) == names{"config.json", "model.safetensors", "tokenizer.json"});
  CHECK(read_file(split / "model.safetensors") == read_file(whole / "model.safetensors"));
}

TEST_CASE("every floating type and odd shapes") {
  const scratch dir;
  std::vector<made_tensor> tensors;
  for (const dtype type : float_types) {
    const std::string name = std::string{"t."} + std::string{to_string(type)};
    for (const auto& [rows, cols] : {std::pair<std::size_t, std::size_t>{5, 1}, {1, 70}, {1, 1}, {33, 65}, {3, 200}})
      tensors.push_back(weight(name + "." + std::to_string(rows) + "x" + std::to_string(cols), type, rows, cols));
    tensors.push_back(float_tensor(name + ".vector", type, {7}, some_weights(1, 7, 1)));
    tensors.push_back(float_tensor(name + ".scalar", type, {}, {0.5f}));
    tensors.push_back(float_tensor(name + ".cube", type, {2, 3, 4}, some_weights(2, 12, 1)));
    tensors.push_back(float_tensor(name + ".no_rows", type, {0, 4}, {}));
    tensors.push_back(float_tensor(name + ".no_cols", type, {4, 0}, {}));
    tensors.push_back(float_tensor(name + ".zeros", type, {4, 5}, std::vector<float>(20)));
    tensors.push_back(float_tensor(name + ".constant", type, {4, 5}, std::vector<float>(20, 0.25f)));
  }
  for (const dtype type : {dtype::i64, dtype::i32, dtype::i16, dtype::i8, dtype::u8, dtype::boolean})
    tensors.push_back({std::string{to_string(type)}, type, {2, 3}, some_bytes(6 * size_bytes(type), 1)});
  const fs::path in = make_model(dir / "in", tensors);
  for (const char* const bits : {"2", "3", "4", "5", "6", "8"})
    for (const char* const method : {"rtn", "sinq"}) {
      INFO(method << " " << bits);
      run_well({"quantize", in.string(), "-o", (dir / "q").string(), "--bits", bits, "--method", method});
      run_well({"verify", (dir / "q").string(), "--against", in.string(), "--json", (dir / "v").string()});
      const auto report = nlohmann::json::parse(read_file(dir / "v"));
      CHECK(report["ok"] == true);
      CHECK(report["totals"]["quantized"] == 7 * float_types.size());
      run_well({"dequantize", (dir / "q").string(), "-o", (dir / "back").string()});
      check_same_model(dir / "back", in, std::string{bits} == "8" ? 0.05 : 0.8);
      run_well({"dump", (dir / "q").string(), "-o", (dir / "dump").string()});
    }
}

TEST_CASE("the dump follows its formula") {
  const scratch dir;
  const std::string in = make_model(dir / "in", {weight("a.weight", dtype::f32, 30, 150)}).string();
  for (const std::vector<std::string>& options :
       {std::vector<std::string>{}, {"--symmetric"}, {"--method", "rtn", "--zero", "fractional"}}) {
    std::vector<std::string> arguments{"quantize", in, "-o", (dir / "q").string()};
    arguments.insert(arguments.end(), options.begin(), options.end());
    run_well(arguments);
    run_well({"dump", (dir / "q").string(), "-o", (dir / "dump").string()});
    run_well({"dequantize", (dir / "q").string(), "-o", (dir / "back").string()});
    const auto dump = value_of(sinq::io::model_reader::open(dir / "dump"));
    const auto back = read_one(value_of(sinq::io::model_reader::open(dir / "back")), "a.weight").values;
    const auto codes = read_one(dump, "a.weight.codes").values, scale = read_one(dump, "a.weight.scale").values;
    const auto zero = read_one(dump, "a.weight.zero").values, t = read_one(dump, "a.weight.t").values;
    REQUIRE(dump.files()[0].tensors().size() == 4);
    REQUIRE(zero.size() == 30 * 3);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < 30; ++i)
      for (std::size_t j = 0; j < 150; ++j) {
        const std::size_t g = i * 3 + j / 64;
        if (back[i * 150 + j] != scale[g] * (codes[i * 150 + j] - zero[g]) * t[j]) ++wrong;
      }
    CHECK(wrong == 0);
  }
}

TEST_CASE("verify sees what is wrong") {
  const scratch dir;
  const fs::path in = make_model(dir / "in", usual_tensors());
  const fs::path q = dir / "q";
  run_well({"quantize", in.string(), "-o", q.string(), "--aux-dtype", "f32"});
  const std::string good = read_file(q);
  const auto flip = [&](const std::string& name, const std::function<void(char*)>& change) {
    std::string content = good;
    const auto file = value_of(sinq::io::safetensors_file::open(write_file(dir / "q", good)));
    const auto* tensor = file.find(name);
    REQUIRE(tensor != nullptr);
    std::uint64_t header = 0;
    std::memcpy(&header, content.data(), sizeof header);
    change(content.data() + sizeof header + header + tensor->begin);
    write_file(q, content);
  };
  const auto verify = [&](const std::vector<std::string>& pieces) {
    run_badly({"verify", q.string(), "--against", in.string()}, pieces);
  };
  const std::string name = "model.layers.0.mlp.down_proj.weight";
  flip("lm_head.weight", [](char* data) { data[5] = static_cast<char>(data[5] ^ 1); });
  verify({q.string(), "'lm_head.weight'", "byte 5"});
  flip(name + ".sinq.scale", [](char* data) { std::memcpy(data, "\0\0\x80\x7f", 4); });
  verify({q.string(), "'" + name + "'", "not finite"});
  flip(name + ".sinq.scale", [](char* data) { data[3] = 0x50; });
  run_badly({"verify", q.string(), "--against", in.string(), "--max-relative-error", "0.5"},
            {"'" + name + "'", "relative error", "0.5"});
  write_file(q, good);
  run_well({"verify", q.string(), "--against", in.string(), "--max-relative-error", "0.2"});
  run_badly({"verify", q.string(), "--against", in.string(), "--max-relative-error", "0.01"}, {"2 more"});

  std::vector<made_tensor> more = usual_tensors();
  more.push_back(weight("another.weight", dtype::f32, 4, 4));
  make_model(in, more);
  verify({"'another.weight'", "missing"});
  more = usual_tensors();
  more.pop_back();
  make_model(in, more);
  verify({"'lm_head.weight'", "not in the original"});
  more = usual_tensors();
  more[1] = weight(more[1].name, dtype::bf16, 96, 64);
  make_model(in, more);
  verify({"'" + more[1].name + "'", "[64, 96]", "[96, 64]"});
}

TEST_CASE("weights too large for their type are refused when they come back") {
  const scratch dir;
  std::vector<float> values(64, 1.0f);
  for (std::size_t j = 0; j < values.size(); ++j) values[j] = j % 2 == 0 ? 1000.0f : -1000.0f;
  const fs::path in = make_model(dir / "in", {float_tensor("a.weight", dtype::f16, {2, 32}, values)});
  run_well({"quantize", in.string(), "-o", (dir / "q").string(), "--method", "rtn", "--aux-dtype", "f32"});
  const std::string good = read_file(dir / "q");
  const auto file = value_of(sinq::io::safetensors_file::open(dir / "q"));
  std::uint64_t header = 0;
  std::memcpy(&header, good.data(), sizeof header);
  std::string content = good;
  const float large = 1e5f;
  std::memcpy(content.data() + sizeof header + header + file.find("a.weight.sinq.scale")->begin + 4, &large, 4);
  write_file(dir / "q2", content);
  run_badly({"dequantize", (dir / "q2").string(), "-o", (dir / "back").string()},
            {(dir / "q2").string(), "'a.weight'", "row 1, column 0", "F16"});
  CHECK(names_in(dir.root()) == names{"in", "q", "q2"});
}
