/// sinq quantize --layout panels, and what every command makes of it.

#include "io/open_checkpoint.hpp"
#include "tool/tool.hpp"

#include <nlohmann/json.hpp>

#include <cstring>

using namespace sinq_test;
using nlohmann::json;

namespace {

/// Everything in a file, or in all files of a directory one after the other.
std::string content_of(const fs::path& path) {
  if (!fs::is_directory(path)) return read_file(path);
  std::string all;
  for (const std::string& name : names_in(path)) all += name + ": " + read_file(path / name);
  return all;
}

/// Quantizes in both layouts: what the other commands make of them must be the same, byte for byte.
void check_both(const scratch& dir, const fs::path& in, std::vector<std::string> options) {
  INFO(Catch::StringMaker<std::vector<std::string>>::convert(options));
  for (const std::string layout : {"canonical", "panels"}) {
    std::vector<std::string> arguments{"quantize", in.string(), "-o", (dir / layout).string(), "--layout", layout};
    arguments.insert(arguments.end(), options.begin(), options.end());
    run_well(arguments);
    run_well({"verify", (dir / layout).string(), "--against", in.string(), "--json", (dir / (layout + "_v")).string()});
    run_well({"dequantize", (dir / layout).string(), "-o", (dir / (layout + "_back")).string(), "--dtype", "f32"});
    run_well({"dump", (dir / layout).string(), "-o", (dir / (layout + "_dump")).string()});
    const auto model = open_checkpoint(dir / layout);
    for (const auto& tensor : model.tensors())
      if (tensor.quantized) CHECK(to_string(model.layout(tensor)) == layout);
  }
  CHECK((content_of(dir / "canonical_back") == content_of(dir / "panels_back")));
  CHECK((content_of(dir / "canonical_dump") == content_of(dir / "panels_dump")));
  CHECK(json::parse(read_file(dir / "canonical_v"))["tensors"] == json::parse(read_file(dir / "panels_v"))["tensors"]);
}

} // namespace

TEST_CASE("panels hold what the canonical layout holds") {
  const scratch dir;
  const fs::path in = make_model(dir / "in", usual_tensors());
  for (const char* const bits : {"2", "3", "4", "5", "6", "8"}) check_both(dir, in, {"--bits", bits});
  check_both(dir, in, {"--preset", "4.25"});
  check_both(dir, in, {"--method", "sinq_nf4", "--symmetric"});
  check_both(dir, in, {"--method", "rtn", "--tile", "32", "--aux-dtype", "f32"});
  const scratch sharded;
  check_both(sharded, make_directory(sharded / "in", usual_tensors(), 20000), {"--shard-size", "6KB"});
  CHECK(fs::exists(sharded / "panels/model.safetensors.index.json"));
}

TEST_CASE("inspect and reports tell the layout and count its bytes") {
  const scratch dir;
  const std::string in = make_model(dir / "in", {weight("a.weight", sinq::dtype::f32, 33, 200)}).string();
  for (const std::string layout : {"canonical", "panels"}) {
    const std::string out = (dir / layout).string();
    run_well({"quantize", in, "-o", out, "--layout", layout, "--json", (dir / "q.json").string()});
    run_well({"quantize", in, "--dry-run", "--layout", layout, "--json", (dir / "dry.json").string()});
    const tool_run inspected = run_well({"inspect", out, "--json", (dir / "i.json").string()});
    CHECK(inspected.out.find("  " + layout + "  ") != std::string::npos);
    const json found = json::parse(read_file(dir / "i.json"))["tensors"][0];
    const json made = json::parse(read_file(dir / "q.json"));
    const json planned = json::parse(read_file(dir / "dry.json"));
    CHECK(found["layout"] == layout);
    CHECK(made["options"]["layout"] == layout);
    CHECK(made["tensors"][0]["bytes_after"] == found["bytes"]);
    CHECK(planned["tensors"][0]["bytes_after"] == found["bytes"]);
    std::size_t bytes = 0;
    const auto model = value_of(sinq::io::model_reader::open(out));
    for (const auto& tensor : model.tensors()) bytes += tensor.info.size_bytes();
    CHECK(found["bytes"] == bytes);
    CHECK(found["bits_per_weight"].get<double>() == 8.0 * static_cast<double>(bytes) / (33 * 200));
    CHECK(made["tensors"][0]["bits_per_weight"] == found["bits_per_weight"]);
  }
}

TEST_CASE("one bit of the panels that is wrong is seen") {
  const scratch dir;
  const std::string in = make_model(dir / "in", {weight("a.weight", sinq::dtype::f32, 33, 200)}).string();
  const std::string q = (dir / "q").string(), back = (dir / "back").string();
  run_well({"quantize", in, "-o", q, "--layout", "panels"});
  run_well({"dequantize", q, "-o", back});
  const std::string expected = read_file(back);
  std::string content = read_file(q);
  std::uint64_t header = 0;
  std::memcpy(&header, content.data(), sizeof header);
  const std::size_t begin = value_of(sinq::io::safetensors_file::open(q)).find("a.weight.sinq.codes")->begin;
  content[sizeof header + header + begin] ^= 1;
  write_file(q, content);
  run_well({"dequantize", q, "-o", back});
  CHECK((read_file(back) != expected));
}

TEST_CASE("a layout that cannot be is refused before anything is written") {
  const scratch dir;
  const fs::path in = make_directory(dir / "in", usual_tensors(), 1 << 20);
  const std::string out = (dir / "out").string();
  run_badly({"quantize", in.string(), "-o", out, "--format", "official", "--layout", "panels"},
            {"--layout panels", "--format native"});
  run_badly({"quantize", in.string(), "-o", out, "--layout", "rows"}, {"--layout", "rows"}, 0);
  CHECK(names_in(dir.root()) == names{"in"});
}
