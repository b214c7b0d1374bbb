#include "io/files.hpp"

#include <sinq/io/model_reader.hpp>

using namespace sinq_test;
using sinq::errc;
using sinq::io::model_reader;

namespace {

/// A file with tensors of one byte each.
std::string file_of(const names& tensors, const std::string& metadata = "") {
  std::string json = "{" + (metadata.empty() ? "" : "\"__metadata__\":" + metadata);
  for (std::size_t i = 0; i < tensors.size(); ++i)
    json += (json.size() > 1 ? ",\"" : "\"") + tensors[i] + "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[" +
            std::to_string(i) + "," + std::to_string(i + 1) + "]}";
  return safetensors(json + "}", tensors.size());
}

std::string index_of(const std::string& map) {
  return "{\"metadata\":{\"total_size\":3,\"more\":[1,{\"weight_map\":0}]},\"weight_map\":{" + map + "}}";
}

names tensor_names(const model_reader& model) {
  names found;
  for (const sinq::io::model_tensor& tensor : model.tensors()) found.push_back(tensor.info.name);
  return found;
}

/// A directory with tensors a and c in one shard and b in the other.
void write_sharded(const scratch& dir) {
  write_file(dir / "s1.safetensors", file_of({"c", "a", "__pad__.0"}, R"({"format":"pt","x":"1"})"));
  write_file(dir / "s2.safetensors", file_of({"b", "__pad__.0"}, R"({"x":"2","y":"3"})"));
  write_file(dir / index_name, index_of(R"("b":"s2.safetensors","a":"s1.safetensors","c":"s1.safetensors")"));
}

} // namespace

TEST_CASE("a single file is a model") {
  const scratch dir;
  write_file(dir / "one.safetensors", file_of({"b", "a"}));
  write_file(dir / "config.json", "{}");
  const auto model = value_of(model_reader::open(dir / "one.safetensors"));
  CHECK(tensor_names(model) == names{"b", "a"});
  CHECK(model.files().size() == 1);
  CHECK(model.directory().empty());
  CHECK(value_of(model.side_files()).empty());
  REQUIRE(model.find("a") != nullptr);
  CHECK(text_of(model.data(*model.find("a")).span()) == "\1");
  CHECK(model.find("c") == nullptr);
}

TEST_CASE("a directory of shards is one model, in the order of shards and bytes") {
  const scratch dir;
  write_sharded(dir);
  const auto model = value_of(model_reader::open(dir.root()));
  CHECK(tensor_names(model) == names{"c", "a", "b"});
  CHECK(model.files().size() == 2);
  CHECK(model.directory() == dir.root());
  CHECK(model.find("b")->file == 1);
  CHECK(model.metadata() == sinq::io::metadata_map{{"format", "pt"}, {"x", "1"}, {"y", "3"}});
  model.release(*model.find("a"));
  CHECK(text_of(model.data(*model.find("a")).span()) == "\1");
  CHECK(tensor_names(value_of(model_reader::open(dir.root() / ""))) == names{"c", "a", "b"});
}

TEST_CASE("copies of a model find by themselves") {
  const scratch dir;
  write_sharded(dir);
  model_reader copy = value_of(model_reader::open(dir.root()));
  {
    const model_reader first = copy;
    copy = first;
  }
  CHECK(copy.find("b") == &copy.tensors()[2]);
  CHECK(text_of(copy.data(*copy.find("c")).span()) == std::string(1, '\0'));
}

TEST_CASE("a directory without an index has model.safetensors or just one file") {
  const scratch dir;
  check_error(model_reader::open(dir.root()), errc::not_found, {dir.root().string(), "no .safetensors file"});
  write_file(dir / "x.safetensors", file_of({"x"}));
  CHECK(tensor_names(value_of(model_reader::open(dir.root()))) == names{"x"});
  write_file(dir / ".hidden.safetensors", file_of({"h"}));
  CHECK(tensor_names(value_of(model_reader::open(dir.root()))) == names{"x"});
  write_file(dir / "y.safetensors", file_of({"y"}));
  check_error(model_reader::open(dir.root()), errc::malformed,
              {dir.root().string(), "2 .safetensors files", "x.safetensors, y.safetensors", index_name});
  write_file(dir / "model.safetensors", file_of({"m"}));
  CHECK(tensor_names(value_of(model_reader::open(dir.root()))) == names{"m"});
  check_error(model_reader::open(dir / "absent"), errc::not_found, {(dir / "absent").string()});
}

TEST_CASE("shards may be links, as in a Hugging Face cache") {
  const scratch dir;
  fs::create_directories(dir / "snapshot");
  write_file(dir / "blob", file_of({"a"}));
  fs::create_symlink("../blob", dir / "snapshot/s1.safetensors");
  write_file(dir / "snapshot" / index_name, index_of(R"("a":"s1.safetensors")"));
  CHECK(tensor_names(value_of(model_reader::open(dir / "snapshot"))) == names{"a"});
}

TEST_CASE("a directory whose parts do not fit together is refused") {
  const scratch dir;
  write_sharded(dir);
  const std::string index = (dir / index_name).string();
  SECTION("missing shard") {
    fs::remove(dir / "s2.safetensors");
    check_error(model_reader::open(dir.root()), errc::not_found,
                {(dir / "s2.safetensors").string(), "missing", "tensor 'b'"});
  }
  SECTION("broken shard") {
    write_file(dir / "s2.safetensors", "short");
    check_error(model_reader::open(dir.root()), errc::malformed, {(dir / "s2.safetensors").string(), "5 bytes"});
  }
  SECTION("tensor that is nowhere") {
    write_file(dir / index_name, index_of(R"("d":"s2.safetensors","a":"s1.safetensors")"));
    check_error(model_reader::open(dir.root()), errc::malformed,
                {(dir / "s2.safetensors").string(), "tensor 'd'", "not in this shard"});
  }
  SECTION("tensor in another shard") {
    write_file(dir / index_name, index_of(R"("a":"s2.safetensors","c":"s1.safetensors")"));
    check_error(model_reader::open(dir.root()), errc::malformed,
                {(dir / "s2.safetensors").string(), "tensor 'a'", "it is in " + (dir / "s1.safetensors").string()});
  }
  SECTION("one name in two shards") {
    write_file(dir / "s2.safetensors", file_of({"b", "a"}));
    check_error(model_reader::open(dir.root()), errc::malformed,
                {(dir / "s2.safetensors").string(), "tensor 'a'", "also in " + (dir / "s1.safetensors").string()});
  }
  SECTION("paths that leave the directory") {
    const std::string file =
        GENERATE("../x.safetensors", "/etc/passwd", "a/../../x", "..", "", "sub/", "x\\u0000y", "x\\ny");
    write_file(dir / index_name, index_of("\"a\":\"" + file + "\""));
    check_error(model_reader::open(dir.root()), errc::malformed, {index, "tensor 'a'", "inside the directory"});
  }
  SECTION("index that is a directory") {
    fs::remove(dir / index_name);
    fs::create_directory(dir / index_name);
    check_error(model_reader::open(dir.root()), errc::io, {index, "is a directory"});
  }
}

TEST_CASE("a broken index is refused with what is wrong") {
  struct fault {
    std::string json;
    errc code;
    std::vector<std::string> pieces;
  };
  const fault f = GENERATE(values<fault>({
      {"", errc::malformed, {"not valid JSON"}},
      {"{", errc::malformed, {"not valid JSON"}},
      {"{}", errc::malformed, {"no weight_map"}},
      {"[]", errc::malformed, {"is an array"}},
      {"3", errc::malformed, {"is a number"}},
      {R"({"weight_map":"x"})", errc::malformed, {"no weight_map"}},
      {R"({"weight_map":{},"weight_map":{}})", errc::malformed, {"two weight_map"}},
      {R"({"weight_map":{"a":1}})", errc::malformed, {"a number for tensor 'a'"}},
      {R"({"weight_map":{"a":null}})", errc::malformed, {"null for tensor 'a'"}},
      {R"({"weight_map":{"a":["x"]}})", errc::malformed, {"nested value for tensor 'a'"}},
      {R"({"weight_map":{"a":"x","a":"x"}})", errc::malformed, {"two weight_map entries for tensor 'a'"}},
      {"{\"deep\":" + std::string(1'000'000, '['), errc::malformed, {"more than 16 levels"}},
      {"{\"weight_map\":{\"\xff\":\"x\"}}", errc::malformed, {"UTF-8"}},
      {std::string{"{\"weight_map\":{}}\0x", 18}, errc::malformed, {"zero byte"}},
      {"{\"weight_map\":{}}}", errc::malformed, {"not valid JSON"}},
  }));
  const scratch dir;
  const fs::path path = write_file(dir / index_name, f.json);
  std::vector<std::string> pieces = f.pieces;
  pieces.push_back(path.string() + ": ");
  check_error(model_reader::open(dir.root()), f.code, pieces);
}

TEST_CASE("an index is bounded") {
  const std::string index = index_of(R"("a":"x","b":"x")");
  check_error(sinq::io::parse_weight_map(index, {.max_tensors = 1}), errc::unsupported, {"1 tensors allowed"});
  check_error(sinq::io::parse_weight_map(index, {.max_header_bytes = 9}), errc::unsupported,
              {std::to_string(index.size()) + " bytes", "9"});
  CHECK(sinq::io::parse_weight_map(index, {.max_header_bytes = index.size(), .max_tensors = 2}));
}

TEST_CASE("an empty index is a model without tensors") {
  const scratch dir;
  write_file(dir / index_name, index_of(""));
  CHECK(value_of(model_reader::open(dir.root())).tensors().empty());
}

TEST_CASE("side files are the visible files that are not weights") {
  const scratch dir;
  write_sharded(dir);
  for (const char* name : {"config.json", "tokenizer.json", "tokenizer.model", "chat_template.jinja", "README.md",
                           "LICENSE", ".gitattributes", "pytorch_model.bin", "pytorch_model.bin.index.json", "m.gguf",
                           "m.pt", "m.pth", "m.h5", "m.onnx"})
    write_file(dir / name, "x");
  fs::create_directory(dir / "onnx");
  fs::create_symlink("config.json", dir / "link.json");
  fs::create_symlink("nowhere", dir / "dangling.json");
  names found;
  for (const fs::path& path : value_of(value_of(model_reader::open(dir.root())).side_files())) {
    CHECK(path.parent_path() == dir.root());
    found.push_back(path.filename().string());
  }
  CHECK(found == names{"LICENSE", "README.md", "chat_template.jinja", "config.json", "link.json", "tokenizer.json",
                       "tokenizer.model"});
}
