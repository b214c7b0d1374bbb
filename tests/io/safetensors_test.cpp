#include "io/files.hpp"

#include <sinq/io/safetensors.hpp>

using namespace sinq_test;
using sinq::dtype;
using sinq::errc;
using sinq::io::safetensors_file;
using sinq::io::safetensors_limits;

namespace {

/// A header that is wrong in one way.
struct fault {
  const char* name;
  std::string json;
  std::size_t data_bytes;
  errc code;
  std::vector<std::string> pieces; ///< that the message must have beside the path
};

std::string tensor(const std::string& name, const std::string& body) {
  return "{\"" + name + "\":{" + body + "}}";
}

/// Two tensors "a" and "b" of 8 bytes each at the given offsets.
std::string two(const std::string& a, const std::string& b) {
  return R"({"a":{"dtype":"F32","shape":[2],"data_offsets":)" + a +
         R"(},"b":{"dtype":"F32","shape":[2],"data_offsets":)" + b + "}}";
}

void check_fault(const fault& f) {
  const scratch dir;
  const fs::path path = write_file(dir / "bad.safetensors", safetensors(f.json, f.data_bytes));
  INFO(f.name);
  std::vector<std::string> pieces = f.pieces;
  pieces.push_back(path.string() + ": ");
  check_error(safetensors_file::open(path), f.code, pieces);
}

} // namespace

TEST_CASE("tensors are read in place, in the order of their bytes") {
  const scratch dir;
  const std::string json = R"({"__metadata__":{"format":"pt","note":"\u00e9"},)"
                           R"("z":{"dtype":"F32","shape":[1,2],"data_offsets":[6,14]},)"
                           R"("a":{"data_offsets":[0,6],"shape":[3],"dtype":"BF16"}}  )";
  const fs::path path = write_file(dir / "m.safetensors", safetensors(json, 14));
  sinq::shared_bytes kept;
  {
    const safetensors_file file = value_of(safetensors_file::open(path));
    CHECK(file.path() == path);
    REQUIRE(file.tensors().size() == 2);
    CHECK(file.tensors()[0].name == "a");
    CHECK(file.tensors()[0].type == dtype::bf16);
    CHECK(file.tensors()[0].elements() == 3);
    CHECK(file.tensors()[0].size_bytes() == 6);
    CHECK(file.tensors()[1].name == "z");
    CHECK(file.tensors()[1].shape == std::vector<std::size_t>{1, 2});
    CHECK(file.metadata() == sinq::io::metadata_map{{"format", "pt"}, {"note", "\xc3\xa9"}});
    CHECK(file.find("z") == &file.tensors()[1]);
    CHECK(file.find("a") == &file.tensors()[0]);
    CHECK(file.find("") == nullptr);
    CHECK(file.find("zz") == nullptr);
    file.release(file.tensors()[1]);
    kept = file.data(file.tensors()[1]);
  }
  CHECK(text_of(kept.span()) == std::string{"\6\7\10\11\12\13\14\15", 8});
}

TEST_CASE("copies of a file share its mapping and find by themselves") {
  const scratch dir;
  const fs::path path = write_file(dir / "m.safetensors", safetensors(two("[0,8]", "[8,16]"), 16));
  std::vector<safetensors_file> files;
  for (int i = 0; i < 5; ++i) files.push_back(i == 0 ? value_of(safetensors_file::open(path)) : files[0]);
  for (const safetensors_file& file : files) {
    CHECK(file.find("b") == &file.tensors()[1]);
    CHECK(file.data(file.tensors()[0]).data() == files[0].data(files[0].tensors()[0]).data());
  }
}

TEST_CASE("scalars and tensors without elements are legal") {
  const scratch dir;
  const std::string json = R"({"none":{"dtype":"F64","shape":[3,0],"data_offsets":[4,4]},)"
                           R"("scalar":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})";
  const auto file = value_of(safetensors_file::open(write_file(dir / "m.safetensors", safetensors(json, 4))));
  CHECK(file.find("scalar")->elements() == 1);
  CHECK(file.find("none")->elements() == 0);
  CHECK(file.data(*file.find("none")).empty());
}

TEST_CASE("a file without tensors is legal") {
  const scratch dir;
  const auto file = value_of(safetensors_file::open(write_file(dir / "m.safetensors", safetensors("{}", 0))));
  CHECK(file.tensors().empty());
  CHECK(file.find("a") == nullptr);
}

TEST_CASE("broken headers are refused with what is wrong") {
  const std::string f32 = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";
  const std::string huge = "18446744073709551615";
  const fault f = GENERATE_COPY(values<fault>({
      {"no brace", R"( {"a":1})", 0, errc::malformed, {"starts with ' '", "'{'"}},
      {"byte order mark", "\xef\xbb\xbf{}", 0, errc::malformed, {"starts with", "'{'"}},
      {"array", "[]", 0, errc::malformed, {"starts with '['"}},
      {"empty header", "", 0, errc::malformed, {"starts with ''"}},
      {"unfinished", R"({"a":{)", 0, errc::malformed, {"not valid JSON at byte"}},
      {"rest after the object", "{}x", 0, errc::malformed, {"not valid JSON at byte 3"}},
      {"second object", "{}{}", 0, errc::malformed, {"not valid JSON at byte 3"}},
      {"comment", "{/**/}", 0, errc::malformed, {"not valid JSON"}},
      {"zero byte", std::string{"{}\0x", 4}, 0, errc::malformed, {"zero byte at 2"}},
      {"bad UTF-8", "{\"\xff\":{}}", 0, errc::malformed, {"not valid JSON", "UTF-8"}},
      {"lone surrogate", R"({"\ud800":{}})", 0, errc::malformed, {"not valid JSON", "surrogate"}},
      {"deep arrays",
       "{\"a\":" + std::string(1'000'000, '['),
       0,
       errc::malformed,
       {"entry 'a'", "an array", "an object"}},
      {"deep objects", tensor("a", R"("shape":{"b":{"c":{}}})"), 0, errc::malformed, {"tensor 'a'", "an object"}},
      {"deep shape", tensor("a", R"("shape":[[[[1]]]])"), 0, errc::malformed, {"tensor 'a'", "an array", "shape"}},
      {"object in metadata", R"({"__metadata__":{"k":{}}})", 0, errc::malformed, {"metadata entry 'k'", "an object"}},
      {"number in metadata", R"({"__metadata__":{"k":1}})", 0, errc::malformed, {"'k'", "a number", "a string"}},
      {"null in metadata", R"({"__metadata__":{"k":null}})", 0, errc::malformed, {"'k'", "null", "a string"}},
      {"metadata is text", R"({"__metadata__":"k"})", 0, errc::malformed, {"'__metadata__'", "a string", "an object"}},
      {"two metadata", R"({"__metadata__":{},"__metadata__":{}})", 0, errc::malformed, {"two __metadata__"}},
      {"metadata twice", R"({"__metadata__":{"k":"1","k":"2"}})", 0, errc::malformed, {"two entries", "'k'"}},
      {"tensor is null", R"({"a":null})", 0, errc::malformed, {"entry 'a'", "null", "an object"}},
      {"tensor is true", R"({"a":true})", 0, errc::malformed, {"entry 'a'", "boolean"}},
      {"empty name", tensor("", f32), 8, errc::malformed, {"empty name"}},
      {"same name twice", "{\"a\":{" + f32 + "},\"a\":{" + f32 + "}}", 8, errc::malformed, {"two tensors named 'a'"}},
      {"same name escaped",
       "{\"a\":{" + f32 + "},\"\\u0061\":{" + f32 + "}}",
       8,
       errc::malformed,
       {"two tensors named 'a'"}},
      {"unknown key",
       tensor("a", f32 + R"(,"stride":[1])"),
       8,
       errc::malformed,
       {"tensor 'a'", "unknown key 'stride'"}},
      {"key twice", tensor("a", f32 + R"(,"shape":[2])"), 8, errc::malformed, {"tensor 'a'", "two keys 'shape'"}},
      {"no dtype", tensor("a", R"("shape":[2],"data_offsets":[0,8])"), 8, errc::malformed, {"'a'", "no \"dtype\""}},
      {"no shape", tensor("a", R"("dtype":"F32","data_offsets":[0,8])"), 8, errc::malformed, {"'a'", "no \"shape\""}},
      {"no offsets", tensor("a", R"("dtype":"F32","shape":[2])"), 8, errc::malformed, {"'a'", "no \"data_offsets\""}},
      {"unknown dtype",
       tensor("a", R"("dtype":"F4","shape":[2],"data_offsets":[0,8])"),
       8,
       errc::unsupported,
       {"tensor 'a'", "'F4'"}},
      {"dtype in lower case",
       tensor("a", R"("dtype":"f32","shape":[2],"data_offsets":[0,8])"),
       8,
       errc::unsupported,
       {"tensor 'a'", "'f32'"}},
      {"dtype is a number", tensor("a", R"("dtype":32)"), 8, errc::malformed, {"tensor 'a'", "a number", "dtype"}},
      {"shape is text", tensor("a", R"("shape":"2")"), 8, errc::malformed, {"tensor 'a'", "a string", "array"}},
      {"negative extent", tensor("a", R"("shape":[-2])"), 8, errc::malformed, {"tensor 'a'", "-2", "shape"}},
      {"fractional extent", tensor("a", R"("shape":[2.5])"), 8, errc::malformed, {"tensor 'a'", "'2.5'", "shape"}},
      {"extent of 2^64",
       tensor("a", R"("shape":[18446744073709551616])"),
       8,
       errc::malformed,
       {"'18446744073709551616'"}},
      {"number beyond double", tensor("a", R"("shape":[1e999])"), 8, errc::malformed, {"not valid JSON"}},
      {"text in shape", tensor("a", R"("shape":["2"])"), 8, errc::malformed, {"tensor 'a'", "a string", "shape"}},
      {"one offset",
       tensor("a", R"("data_offsets":[0])"),
       8,
       errc::malformed,
       {"tensor 'a'", "1 data_offsets", "expected 2"}},
      {"three offsets", tensor("a", R"("data_offsets":[0,8,9])"), 8, errc::malformed, {"tensor 'a'", "more than 2"}},
      {"negative offset",
       tensor("a", R"("data_offsets":[-1,8])"),
       8,
       errc::malformed,
       {"tensor 'a'", "-1", "data_offsets"}},
      {"reversed offsets",
       tensor("a", R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"),
       8,
       errc::malformed,
       {"tensor 'a'", "[8, 0]"}},
      {"beyond the end", two("[0,8]", "[8,16]"), 15, errc::malformed, {"tensor 'b'", "[8, 16]", "15 bytes"}},
      {"far beyond the end", two("[0,8]", "[8," + huge + "]"), 16, errc::malformed, {"tensor 'b'", huge, "16 bytes"}},
      {"offsets that wrap", two("[0,8]", "[" + huge + ",7]"), 16, errc::malformed, {"tensor 'b'", huge}},
      {"overlap",
       two("[0,8]", "[4,12]"),
       12,
       errc::malformed,
       {"tensor 'b'", "byte 4", "overlaps tensor 'a'", "ends at 8"}},
      {"same bytes", two("[0,8]", "[0,8]"), 8, errc::malformed, {"overlaps"}},
      {"hole", two("[0,8]", "[12,20]"), 20, errc::malformed, {"tensor 'b'", "byte 12", "expected 8"}},
      {"hole at the start",
       tensor("a", R"("dtype":"F32","shape":[2],"data_offsets":[4,12])"),
       12,
       errc::malformed,
       {"tensor 'a'", "byte 4", "expected 0"}},
      {"rest after the tensors", two("[0,8]", "[8,16]"), 17, errc::malformed, {"end at byte 16", "17 bytes"}},
      {"rest without tensors", "{}", 1, errc::malformed, {"end at byte 0", "1 bytes"}},
      {"size too small",
       tensor("a", R"("dtype":"F64","shape":[2],"data_offsets":[0,8])"),
       8,
       errc::malformed,
       {"tensor 'a' of F64 and shape [2]", "takes 16", "hold 8"}},
      {"size too large",
       tensor("a", R"("dtype":"U8","shape":[2],"data_offsets":[0,8])"),
       8,
       errc::malformed,
       {"tensor 'a' of U8", "takes 2", "hold 8"}},
      {"product overflows",
       tensor("a", R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0])"),
       0,
       errc::malformed,
       {"tensor 'a'", "[4294967296, 4294967296]", "overflows"}},
      {"bytes overflow",
       tensor("a", R"("dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0])"),
       0,
       errc::malformed,
       {"tensor 'a'", "overflows"}},
      {"overflow behind a zero",
       tensor("a", R"("dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,0])"),
       0,
       errc::malformed,
       {"overflows"}},
      {"rank of 33",
       tensor("a", R"("shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1])"),
       0,
       errc::unsupported,
       {"tensor 'a'", "32 dimensions"}},
      {"control bytes in a name",
       tensor("a\\n\\u0000", R"("dtype":"F4")"),
       0,
       errc::unsupported,
       {"tensor 'a\\x0a\\x00'"}},
  }));
  check_fault(f);
}

TEST_CASE("a file too short for its header length is refused") {
  const scratch dir;
  for (std::size_t size = 0; size < 8; ++size) {
    const fs::path path = write_file(dir / "short.safetensors", std::string(size, '\1'));
    check_error(safetensors_file::open(path), errc::malformed,
                {path.string(), std::to_string(size) + " bytes", "header length"});
  }
}

TEST_CASE("a header length beyond the file is refused") {
  const scratch dir;
  const std::uint64_t length = GENERATE(3u, 1000u, 0x7fffffffffffffffu, 0xfffffffffffffff8u, 0xffffffffffffffffu);
  std::string content(reinterpret_cast<const char*>(&length), sizeof length);
  const fs::path path = write_file(dir / "m.safetensors", content + "{}");
  check_error(safetensors_file::open(path), errc::malformed,
              {path.string(), "header length is " + std::to_string(length), "2 bytes"});
}

TEST_CASE("every truncation of a file is refused") {
  const scratch dir;
  const std::string whole = safetensors(two("[0,8]", "[8,16]"), 16);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const fs::path path = write_file(dir / "m.safetensors", whole.substr(0, size));
    check_error(safetensors_file::open(path), errc::malformed, {path.string()});
  }
}

TEST_CASE("limits are checked before memory is taken") {
  const scratch dir;
  const std::string json = two("[0,8]", "[8,16]");
  const fs::path path = write_file(dir / "m.safetensors", safetensors(json, 16));
  const std::string length = std::to_string(json.size());
  check_error(safetensors_file::open(path, {.max_header_bytes = 99}), errc::unsupported,
              {path.string(), "header length is " + length, "99"});
  check_error(safetensors_file::open(path, {.max_tensors = 1}), errc::unsupported,
              {path.string(), "1 tensors allowed"});
  check_error(safetensors_file::open(path, {.max_rank = 0}), errc::unsupported, {path.string(), "'a'", "0 dimensions"});
  CHECK(safetensors_file::open(path, {.max_header_bytes = json.size(), .max_tensors = 2, .max_rank = 1}));
  const fs::path meta = write_file(dir / "n.safetensors", safetensors(R"({"__metadata__":{"a":"","b":""}})", 0));
  check_error(safetensors_file::open(meta, {.max_tensors = 1}), errc::unsupported, {"1 entries of metadata"});
}

TEST_CASE("a missing file or a directory is refused by name") {
  const scratch dir;
  check_error(safetensors_file::open(dir / "absent"), errc::not_found, {(dir / "absent").string()});
  check_error(safetensors_file::open(dir.root()), errc::io, {dir.root().string(), "directory"});
}
