/// What a stranger's file or a slip of the hand can do: one line that says what is wrong where, and no output.

#include "tool/tool.hpp"

#include <limits>

using namespace sinq_test;

namespace {

/// Quantizing that content must fail with those pieces, and leave nothing beside the input.
void refuse(const std::string& content, const std::vector<std::string>& pieces) {
  const scratch dir;
  const fs::path input = write_file(dir / "in.safetensors", content);
  std::vector<std::string> all{input.string()};
  all.insert(all.end(), pieces.begin(), pieces.end());
  run_badly({"quantize", input.string(), "-o", (dir / "out.safetensors").string()}, all);
  CHECK(names_in(dir.root()) == names{"in.safetensors"});
  run_badly({"inspect", input.string()}, all);
  run_badly({"compare", input.string()}, all);
}

std::string entry(const std::string& name, const std::string& type, const std::string& shape, std::size_t begin,
                  std::size_t end) {
  return "\"" + name + "\":{\"dtype\":\"" + type + "\",\"shape\":" + shape + ",\"data_offsets\":[" +
         std::to_string(begin) + "," + std::to_string(end) + "]}";
}

std::string with_length(std::uint64_t length, const std::string& rest) {
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + rest;
}

} // namespace

TEST_CASE("a file that breaks the format is refused") {
  refuse("", {"0 bytes"});
  refuse("abc", {"3 bytes"});
  const std::string good = safetensors("{" + entry("a.weight", "F32", "[2,2]", 0, 16) + "}", 16);
  refuse(good.substr(0, good.size() - 1), {"'a.weight'", "16", "15 bytes"});
  refuse(good.substr(0, 20), {"header length"});
  refuse(with_length(1000, "{}"), {"1000", "2 bytes"});
  refuse(with_length(std::numeric_limits<std::uint64_t>::max(), "{}"), {"18446744073709551615"});
  refuse(safetensors("{\"a\":" + std::string(100000, '['), 0), {"'a'", "an array"});
  refuse(safetensors(std::string(100000, '{'), 0), {"JSON"});
  refuse(safetensors("{\"a\":", 0), {"JSON"});
  refuse(safetensors("[]", 0), {"'['"});
}

TEST_CASE("tensors that cannot be where the header puts them are refused") {
  const auto two = [](const std::string& a, const std::string& b) { return safetensors("{" + a + "," + b + "}", 32); };
  refuse(two(entry("a", "F32", "[2,2]", 0, 16), entry("b", "F32", "[2,2]", 8, 24)), {"'b'", "overlaps", "'a'", "16"});
  refuse(two(entry("a", "F32", "[2,2]", 16, 0), entry("b", "F32", "[2,2]", 16, 32)), {"'a'", "[16, 0]"});
  refuse(two(entry("a", "F32", "[2,2]", 0, 16), entry("b", "F32", "[2,2]", 32, 48)), {"'b'", "[32, 48]", "32 bytes"});
  refuse(two(entry("a", "F32", "[4294967296,4294967296,4]", 0, 16), entry("b", "F32", "[2,2]", 16, 32)),
         {"'a'", "[4294967296, 4294967296, 4]", "overflows"});
  refuse(two(entry("a", "F16", "[2,2]", 0, 16), entry("b", "F32", "[2,2]", 16, 32)), {"'a'", "F16", "8 bytes", "16"});
  refuse(two(entry("a", "F32", "[2,3]", 0, 16), entry("b", "F32", "[2,2]", 16, 32)), {"'a'", "[2, 3]", "24", "16"});
  refuse(two(entry("a", "F33", "[2,2]", 0, 16), entry("b", "F32", "[2,2]", 16, 32)), {"'a'", "'F33'"});
  refuse(two(entry("a", "F32", "[2,2]", 0, 16), entry("a", "F32", "[2,2]", 16, 32)), {"'a'", "two"});
  refuse(two(entry("a", "F32", "[2,2]", 0, 16), "\"b\":{\"dtype\":\"F32\"}"), {"'b'", "shape"});
}

TEST_CASE("names that the checkpoint needs are refused") {
  const scratch dir;
  for (const char* const suffix : {".sinq.codes", ".sinq.scale", ".sinq.zero", ".sinq.t"}) {
    const std::string name = std::string{"a.weight"} + suffix;
    const fs::path in =
        make_model(dir / "in", {weight("a.weight", sinq::dtype::f32, 4, 4), {name, sinq::dtype::u8, {1}, "x"}});
    run_badly({"quantize", in.string(), "-o", (dir / "out").string(), "--symmetric"}, {in.string(), "'" + name + "'"});
  }
  // metadata that would be taken for ours is not copied
  auto writer = value_of(sinq::io::model_writer::create_file(dir / "in"));
  require_ok(writer.set_metadata("sinq.tensor.b.weight", "{}"));
  add_all(writer, usual_tensors());
  run_well({"quantize", (dir / "in").string(), "-o", (dir / "out").string()});
  run_well({"verify", (dir / "out").string(), "--against", (dir / "in").string()});
}

TEST_CASE("control characters in names do not break the line") {
  refuse(safetensors("{" + entry("a\\n\\u001b[31m", "F33", "[2,2]", 0, 16) + "}", 16), {"'a\\x0a\\x1b[31m'"});
}

TEST_CASE("NaN and infinity in weights are named by row and column") {
  const scratch dir;
  const std::string output = (dir / "out.safetensors").string();
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()})
    for (const sinq::dtype type : {sinq::dtype::f64, sinq::dtype::f32, sinq::dtype::f16, sinq::dtype::bf16}) {
      std::vector<float> values = some_weights(70, 130, 1);
      values[3 * 130 + 70] = bad; // row-major order is not that of tiles
      values[65 * 130 + 2] = bad;
      const fs::path input = make_model(dir / "in.safetensors", {float_tensor("a.weight", type, {70, 130}, values)});
      for (const char* const method : {"rtn", "sinq"})
        run_badly({"quantize", input.string(), "-o", output, "--method", method},
                  {input.string(), "tensor 'a.weight'", "row 3, column 70"});
      run_badly({"compare", input.string()}, {input.string(), "tensor 'a.weight'", "row 3, column 70"});
      CHECK(names_in(dir.root()) == names{"in.safetensors"});
    }
}

TEST_CASE("an index that does not fit its shards is refused") {
  const scratch dir;
  const fs::path input = make_directory(dir / "in", usual_tensors(), 20000);
  const std::string output = (dir / "out").string();
  const fs::path index = input / "model.safetensors.index.json";
  const std::string text = read_file(index);
  const std::vector<std::string> before = names_in(input);
  const std::string shard =
      *std::find_if(before.begin(), before.end(), [](const auto& n) { return n.starts_with("model-00002"); });

  fs::rename(input / shard, dir / "kept");
  run_badly({"quantize", input.string(), "-o", output}, {(input / shard).string(), "missing"});
  fs::rename(dir / "kept", input / shard);
  write_file(index, text.substr(0, text.size() / 2));
  run_badly({"quantize", input.string(), "-o", output}, {index.string(), "JSON"});
  write_file(index, "{\"weight_map\": {\"a\": \"../../etc/passwd\"}}");
  run_badly({"quantize", input.string(), "-o", output}, {index.string(), "'a'", "'../../etc/passwd'"});
  CHECK(names_in(dir.root()) == names{"in"});
}

TEST_CASE("a slip on the command line is refused") {
  const scratch dir;
  const std::string in = make_model(dir / "in.safetensors", usual_tensors()).string();
  const std::string out = (dir / "out.safetensors").string();
  const auto refuse_options = [&](const std::vector<std::string>& options, const std::vector<std::string>& pieces) {
    std::vector<std::string> arguments{"quantize", in, "-o", out};
    arguments.insert(arguments.end(), options.begin(), options.end());
    run_badly(arguments, pieces, 0);
  };
  refuse_options({"--no-such-option"}, {"--no-such-option"});
  refuse_options({"--bits", "7"}, {"--bits", "7"});
  refuse_options({"--group-size", "0"}, {"--group-size", "0"});
  refuse_options({"--group-size", "-64"}, {"--group-size", "-64"});
  refuse_options({"--group-size", "many"}, {"--group-size", "many"});
  refuse_options({"--threads", "0"}, {"--threads", "0"});
  refuse_options({"--method", "magic"}, {"--method", "magic"});
  refuse_options({"--aux-dtype", "f8"}, {"--aux-dtype", "f8"});
  refuse_options({"--include", "no_such_name"}, {in, "--include", "'no_such_name'", "7 tensors"});
  refuse_options({"--exclude", "no_such_name"}, {in, "--exclude", "'no_such_name'"});
  refuse_options({"--bits-for", "no_such_name=3"}, {in, "--bits-for", "'no_such_name'"});
  refuse_options({"--bits-for", "lm_head=3"}, {in, "--bits-for", "'lm_head'", "that are quantized"});
  refuse_options({"--bits-for", "q_proj=9"}, {in, "q_proj", "9"});
  refuse_options({"--bits-for", "q_proj"}, {in, "--bits-for", "'q_proj'", "REGEX=N"});
  refuse_options({"--include", "(("}, {in, "((", "regular expression"});
  refuse_options({"--exclude", "."}, {in, "nothing to quantize", "7", "--include"});
  refuse_options({"--shard-size", "1GB"}, {"--shard-size", "directory"});
  refuse_options({"--json", out}, {out, "JSON report"});
  refuse_options({"--json", in}, {in, "same file"});
  run_badly({"quantize", in}, {"-o OUT"});
  run_badly({}, {}, 0);
  run_badly({"no-such-command"}, {}, 0);
  CHECK(names_in(dir.root()) == names{"in.safetensors"});
}

TEST_CASE("an output that cannot be written is refused before the work") {
  const scratch dir;
  const std::string in = make_model(dir / "in.safetensors", usual_tensors()).string();
  const std::string in_dir = make_directory(dir / "in_dir", usual_tensors(), 1 << 20).string();
  write_file(dir / "file", "x");
  fs::create_directory(dir / "directory");
  const std::vector<std::string> before = names_in(dir.root());
  for (const std::string& target :
       {(dir / "no/such/out").string(), (dir / "file/out").string(), std::string{"/proc/out"}}) {
    run_badly({"quantize", in, "-o", target}, {target});
    run_badly({"quantize", in_dir, "-o", target}, {target});
  }
  run_badly({"quantize", in, "-o", (dir / "directory").string()}, {(dir / "directory").string(), "directory"});
  run_badly({"quantize", in_dir, "-o", (dir / "file").string()}, {(dir / "file").string(), "not a directory"});
  run_badly({"quantize", in, "-o", (dir / "out").string(), "--json", (dir / "no/report").string()},
            {(dir / "no/report").string()});
  CHECK(names_in(dir.root()) == before);
  CHECK(read_file(dir / "file") == "x");
  CHECK(names_in(dir / "directory").empty());
}

TEST_CASE("an output that is the input is refused") {
  const scratch dir;
  const std::string in = make_model(dir / "in.safetensors", usual_tensors()).string();
  const fs::path in_dir = make_directory(dir / "in_dir", usual_tensors(), 1 << 20);
  fs::create_symlink(in, dir / "link");
  fs::create_directory_symlink(in_dir, dir / "dir_link");
  fs::create_directory(dir / "other");
  fs::create_symlink(in_dir / "config.json", dir / "other" / "config.json");
  const std::string content = read_file(in);
  const std::vector<std::string> before = names_in(dir.root());
  for (const std::string& target : {in, (dir / "link").string(), (dir / "in_dir/../in.safetensors").string()})
    run_badly({"quantize", in, "-o", target}, {target, "same file"});
  for (const fs::path& target : {in_dir, dir / "dir_link", in_dir / "inside", dir / "dir_link/inside"})
    run_badly({"quantize", in_dir.string(), "-o", target.string()}, {target.string(), "input directory"});
  run_badly({"quantize", in_dir.string(), "-o", (dir / "other").string()}, {"same file"});
  CHECK(names_in(dir.root()) == before);
  CHECK(read_file(in) == content);
}

TEST_CASE("what is quantized already, or is not, is refused where that matters") {
  const scratch dir;
  const std::string in = make_model(dir / "in.safetensors", usual_tensors()).string();
  const std::string q = (dir / "q.safetensors").string();
  const std::string out = (dir / "out.safetensors").string();
  run_well({"quantize", in, "-o", q});
  run_badly({"quantize", q, "-o", out}, {q, "quantized already"});
  run_badly({"dump", in, "-o", out}, {in, "no quantized tensors"});
  run_badly({"dequantize", in, "-o", out}, {in, "no quantized tensors"});
  run_badly({"dump", q, "-o", q}, {q, "same file"});
  run_badly({"dequantize", q, "-o", q}, {q, "same file"});
  run_badly({"compare", in, "--tensor", "no_such_name"}, {in, "'no_such_name'"});
  run_badly({"compare", in, "--tensor", "model.positions"}, {in, "'model.positions'", "I64"});
  run_badly({"inspect", (dir / "missing").string()}, {(dir / "missing").string()});
  CHECK(names_in(dir.root()) == names{"in.safetensors", "q.safetensors"});
}
