/// The official format: its packings, its writer and reader, and what strangers may put into it.

#include "io/files.hpp"
#include "io/open_checkpoint.hpp"

#include "support/packed.hpp"
#include "support/random_quantized.hpp"

#include <sinq/io/checkpoint.hpp>
#include <sinq/io/official_writer.hpp>
#include <sinq/pack/pack.hpp>

#include <nlohmann/json.hpp>

#include <functional>
#include <random>

using namespace sinq_test;
namespace io = sinq::io;
using sinq::errc;

namespace {

constexpr const char* layer_name = "model.layers.0.mlp.up_proj";
constexpr const char* config_text = R"({"model_type": "llama", "dtype": "float32", "hidden_size": 64, "head_dim": 16,
  "num_attention_heads": 4, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}})";

std::vector<std::uint8_t> some_codes(std::size_t count, int bits, unsigned seed) {
  std::vector<std::uint8_t> codes(count);
  std::mt19937 random{seed};
  for (std::uint8_t& code : codes)
    code = static_cast<std::uint8_t>(random() & static_cast<unsigned>(sinq::max_code(bits)));
  return codes;
}

/// A matrix that the official format can hold.
sinq::packed_matrix some_matrix(int bits, std::size_t rows, std::size_t cols, std::size_t group, bool t = true) {
  sinq::quantized_matrix q = sinq::quantized_matrix::allocate(
      {.rows = rows, .cols = cols, .bits = bits, .group_size = group, .has_col_scale = t}, "sinq");
  const std::vector<std::uint8_t> codes = some_codes(q.codes.size(), bits, static_cast<unsigned>(rows));
  std::copy(codes.begin(), codes.end(), q.codes.begin());
  for (std::size_t n = 0; n < q.scale.size(); ++n) {
    q.scale[n] = 0.0625f * static_cast<float>(n % 7 + 1);
    q.zero[n] = static_cast<float>(n % 5) - 0.25f;
  }
  for (std::size_t j = 0; j < q.col_scale.size(); ++j) q.col_scale[j] = 1.0f + 0.125f * static_cast<float>(j % 9);
  return value_of(sinq::pack(q));
}

void make_input(const fs::path& path, const std::string& config) {
  auto to = value_of(io::model_writer::create_directory(path));
  require_ok(to.write_side_file("config.json", as_bytes(config)));
  const std::vector<float> embedding(4 * 64, 0.5f);
  require_ok(to.add("model.embed_tokens.weight", sinq::dtype::f32, std::vector<std::size_t>{4, 64},
                    std::as_bytes(std::span{embedding})));
  require_ok(to.commit());
}

/// Writes one layer and one plain tensor in the official format.
sinq::result<void> write_official(const scratch& dir, const fs::path& path, const std::string& name,
                                  const sinq::packed_matrix& p) {
  make_input(dir / "in", config_text);
  const auto input = value_of(io::model_reader::open(dir / "in"));
  auto official = value_of(io::official_writer::prepare(input));
  auto to = value_of(io::model_writer::create_directory(path, {.file = {}, .always_index = true}));
  const io::model_tensor& embedding = *input.find("model.embed_tokens.weight");
  official.note(embedding.info);
  require_ok(to.add(embedding.info.name, embedding.info.type, embedding.info.shape, input.data(embedding).span(), 4));
  if (auto done = official.add(to, name, p, sinq::dtype::bf16); !done) return done;
  if (auto done = official.finish(to); !done) return done;
  return to.commit();
}

} // namespace

TEST_CASE("every official packing gives back the codes, for any number of rows") {
  for (const io::official_packing& packing : io::official_packings)
    for (std::size_t rows = 1; rows <= 41; ++rows)
      for (const std::size_t cols : {1u, 7u, 64u}) {
        const std::vector<std::uint8_t> codes = some_codes(rows * cols, packing.bits, static_cast<unsigned>(rows));
        const std::vector<sinq::byte> words = io::pack_official(packing, codes, cols);
        CAPTURE(packing.name, rows, cols);
        REQUIRE(words.size() == packing.word_rows(rows) * cols * size_bytes(packing.word));
        std::vector<std::uint8_t> back(codes.size());
        for (std::size_t r = 0; r < rows; ++r)
          io::unpack_official_row(packing, words, rows, r, std::span{back}.subspan(r * cols, cols));
        REQUIRE(back == codes);
      }
}

TEST_CASE("official words are those of the picture") {
  const auto word = [](int bits, const std::vector<std::uint8_t>& codes) {
    const auto bytes = io::pack_official(io::packing_of(bits), codes, 1);
    std::uint32_t value = 0;
    std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  };
  CHECK(word(8, {0xab}) == 0xab);
  CHECK(word(4, {0xa, 0x3}) == 0xa3);
  CHECK(word(2, {3, 0, 1, 2}) == 0b11000110);
  CHECK(word(3, {1, 2, 3, 4, 5, 6, 7, 0, 1, 2}) == 01234567012);
  CHECK(word(6, {1, 2, 3, 4, 077}) == 0102030477);
  CHECK(word(5, {1, 2, 3, 4, 5, 31}) == ((1u << 25) | (2u << 20) | (3u << 15) | (4u << 10) | (5u << 5) | 31u));
}

TEST_CASE("what is written in the official format is read back as it was") {
  const scratch dir;
  for (const int bits : {2, 3, 4, 5, 6})
    for (const bool t : {true, false})
      for (const auto& [rows, cols, group] :
           {std::array<std::size_t, 3>{8, 128, 64}, {5, 96, 32}, {1, 64, 64}, {33, 40, 8}, {64, 64, 64}}) {
        CAPTURE(bits, rows, cols, group, t);
        const auto p = some_matrix(bits, rows, cols, group, t);
        require_ok(write_official(dir, dir / "out", layer_name + std::string{".weight"}, p));
        const auto model = open_checkpoint(dir / "out");
        CHECK(model.is_official());
        REQUIRE(model.tensors().size() == 2);
        const io::checkpoint_tensor* const found = model.find(layer_name + std::string{".weight"});
        REQUIRE(found != nullptr);
        CHECK(found->quantized);
        CHECK(found->type == sinq::dtype::bf16);
        CHECK(found->shape == std::vector{rows, cols});
        const sinq::packed_matrix& back = model.packed(*found);
        CHECK(same_bytes(back.codes, p.codes));
        CHECK(same_bytes(back.scale, p.scale));
        CHECK(same_bytes(back.zero, p.zero));
        if (t) CHECK(same_bytes(back.col_scale, p.col_scale));
        CHECK(sinq::dequantize(back) == sinq::dequantize(p));
        CHECK(&model.packed(*found) == &back);
        model.release(*found);
        CHECK(sinq::dequantize(model.packed(*found)) == sinq::dequantize(p));
      }
  CHECK(names_in(dir / "out") == names{"config.json", "model-00001-of-00001.safetensors",
                                       "model.safetensors.index.json", "model.safetensors.index.json.meta.json"});
  const nlohmann::json config = nlohmann::json::parse(read_file(dir / "out/config.json"));
  CHECK(config.at("sinq") == true);
  CHECK(config.at("quantization_config").at("quant_method") == "sinq");
  CHECK(config.at("quantization_config").at("nbits") == 6);
  CHECK(config.at("quantization_config").at("modules_to_not_convert") == nlohmann::json{"lm_head"});
  const auto raw = value_of(io::model_reader::open(dir / "out"));
  const io::model_tensor* const frequencies = raw.find("model.rotary_emb.inv_freq");
  REQUIRE(frequencies != nullptr);
  CHECK(frequencies->info.shape == std::vector<std::size_t>{8});
  CHECK(raw.find("model.rotary_emb.original_inv_freq") != nullptr);
  const nlohmann::json plain = nlohmann::json::parse(value_of(io::plain_config(dir / "out/config.json")));
  CHECK(plain == nlohmann::json::parse(config_text));
}

TEST_CASE("a native checkpoint over an official one leaves nothing of it") {
  const scratch dir;
  require_ok(write_official(dir, dir / "out", layer_name + std::string{".weight"}, some_matrix(4, 8, 64, 64)));
  auto to = value_of(io::model_writer::create_directory(dir / "out"));
  require_ok(io::begin_checkpoint(to));
  require_ok(io::write_packed(to, "w", some_matrix(4, 8, 64, 64), sinq::dtype::f32));
  require_ok(to.commit());
  CHECK(names_in(dir / "out") == names{"config.json", "model.safetensors"});
  CHECK_FALSE(open_checkpoint(dir / "out").is_official());
}

TEST_CASE("what the official format cannot hold is refused by its reason") {
  const std::string name = layer_name + std::string{".weight"};
  const sinq::matrix_format good{.rows = 4, .cols = 64, .group_size = 32};
  require_ok(io::check_official(name, good));
  const auto refused = [&](auto change, const std::string& says) {
    sinq::matrix_format f = good;
    change(f);
    check_error(io::check_official(name, f), errc::unsupported, {"official format", says});
  };
  refused([](auto& f) { f.bits = 8; }, "bits is 8, expected 2, 3, 4, 5 or 6");
  refused([](auto& f) { f.group_size = 48; }, "group_size is 48, expected one that divides the 64 columns");
  refused([](auto& f) { f.grid = sinq::grid::nf4; }, "levels");
  refused([](auto& f) { f.tile_rows = 32; }, "tiles of 32 rows");
  refused([](auto& f) { f.rotation = 64; }, "blocks of 64");
  refused([](auto& f) { f.scale_bits = 6; }, "quantized");
  refused([](auto& f) { f.aux = sinq::aux_dtype::bf16; }, "BF16, expected F16");
  check_error(io::check_official("w", good), errc::unsupported, {"LAYER.weight"});
  check_error(io::check_official("model.embed_tokens.weight", good), errc::unsupported, {"embeddings"});
}

TEST_CASE("a value that f16 cannot hold is named, and nothing is left") {
  const scratch dir;
  sinq::quantized_matrix q = sinq::unpack(some_matrix(4, 8, 64, 64));
  q.format.col_scale_type = sinq::dtype::f32;
  q.col_scale[5] = 1e6f;
  check_error(write_official(dir, dir / "out", layer_name + std::string{".weight"}, value_of(sinq::pack(q))),
              errc::not_representable, {"t of column 5 is 1000000", "F16"});
  CHECK(names_in(dir.root()) == names{"in"});
}

TEST_CASE("rotary frequencies are those of transformers") {
  const auto of = [](const char* text) { return io::rotary_frequencies(nlohmann::json::parse(text)); };
  const std::vector<float> plain = value_of(of(R"({"rope_theta": 10000.0, "head_dim": 8})"));
  REQUIRE(plain.size() == 4);
  CHECK(plain[0] == 1.0f);
  CHECK(std::fabs(plain[1] - 0.1f) < 1e-8f);
  CHECK(std::fabs(plain[3] - 0.001f) < 1e-9f);
  const auto linear = value_of(of(R"({"head_dim": 8, "rope_scaling": {"type": "linear", "factor": 2.0}})"));
  CHECK(linear[1] == plain[1] / 2);
  const auto llama3 = value_of(of(R"({"head_dim": 8, "rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0,
    "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 512}})"));
  CHECK(llama3[0] == plain[0]);
  CHECK(llama3[3] == plain[3] / 8);
  CHECK(value_of(of(R"({"model_type": "gpt2"})")).empty());
  CHECK(value_of(of(R"({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4})")).size() == 8);
  check_error(of(R"({"head_dim": 8, "rope_scaling": {"type": "yarn", "factor": 2.0}})"), errc::unsupported, {"'yarn'"});
  check_error(of(R"({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}})"), errc::unsupported,
              {"several kinds"});
  check_error(of(R"({"rope_theta": -1, "head_dim": 8})"), errc::malformed, {"rope_theta is '-1'"});
  check_error(of(R"({"rope_theta": 1e4, "head_dim": 1e30})"), errc::malformed, {"rotary dimension"});
}

namespace {

/// An official directory that a stranger changes before it is opened.
class hostile {
public:
  hostile() : p_{some_matrix(4, 8, 128, 64)} {
    require_ok(write_official(dir_, dir_ / "good", layer_name + std::string{".weight"}, p_));
  }

  /// Opens a copy whose `.meta.json` was changed.
  void meta(const std::function<void(nlohmann::json&)>& change, errc code, std::vector<std::string> says) const {
    const fs::path path = copy() / io::model_meta_name;
    nlohmann::json document = nlohmann::json::parse(read_file(path));
    change(document[layer_name]["meta"]);
    write_file(path, document.dump());
    says.push_back(layer_name);
    check_error(io::checkpoint::open(dir_ / "bad"), code, says);
  }

  /// Opens a copy whose `.meta.json` is that text.
  void meta_text(const std::string& text, errc code, const std::vector<std::string>& says) const {
    write_file(copy() / io::model_meta_name, text);
    check_error(io::checkpoint::open(dir_ / "bad"), code, says);
  }

  /// Opens a copy one of whose tensors has another name, type or shape, or is left out if the name is empty.
  void tensor(const std::string& part, const std::function<void(io::tensor_info&)>& change,
              const std::vector<std::string>& says) const {
    const auto model = value_of(io::model_reader::open(dir_ / "good"));
    const fs::path to = copy();
    auto writer = value_of(io::model_writer::create_directory(to, {.file = {}, .always_index = true}));
    for (const io::model_tensor& tensor : model.tensors()) {
      io::tensor_info info = tensor.info;
      if (info.name == layer_name + part) change(info);
      const std::string bytes(io::tensor_bytes(info.type, info.shape).value(), '\1');
      if (!info.name.empty()) require_ok(writer.add(info.name, info.type, info.shape, as_bytes(bytes)));
    }
    require_ok(
        writer.write_side_file(std::string{io::model_meta_name}, as_bytes(read_file(dir_ / "good" / meta_name()))));
    require_ok(writer.commit());
    check_error(io::checkpoint::open(to), errc::malformed, says);
  }

  void without_meta() const {
    fs::remove(copy() / io::model_meta_name);
    check_error(io::checkpoint::open(dir_ / "bad"), errc::not_found, {meta_name()});
  }

private:
  [[nodiscard]] static std::string meta_name() { return std::string{io::model_meta_name}; }
  [[nodiscard]] fs::path copy() const {
    fs::remove_all(dir_ / "bad");
    fs::copy(dir_ / "good", dir_ / "bad");
    return dir_ / "bad";
  }

  scratch dir_;
  sinq::packed_matrix p_;
};

} // namespace

TEST_CASE("what is told of a layer is checked") {
  const hostile h;
  const auto set = [&](const char* key, const nlohmann::json& value, errc code, const std::vector<std::string>& says) {
    h.meta([&](nlohmann::json& meta) { meta[key] = value; }, code, says);
  };
  set("nbits", 7, errc::unsupported, {"nbits is '7'"});
  set("nbits", 1.58, errc::unsupported, {"nbits is '1.58'"});
  set("nbits", "4", errc::malformed, {"nbits"});
  set("nbits", 3, errc::malformed, {"packing is '\"4bit_u8\"', expected 3bit_32"});
  set("nbits", -4, errc::unsupported, {"nbits is '-4'"});
  set("packing", nullptr, errc::malformed, {"packing is 'null', expected 4bit_u8"});
  set("shape", nlohmann::json{8}, errc::malformed, {"shape is '[8]'"});
  set("shape", nlohmann::json{8, "128"}, errc::malformed, {"shape is"});
  set("shape", nlohmann::json{8, -128}, errc::malformed, {"shape is"});
  set("shape", nlohmann::json{0, 128}, errc::empty_matrix, {"0 x 128"});
  set("shape", nlohmann::json{std::size_t{1} << 40, std::size_t{1} << 40}, errc::invalid_argument, {"2^56"});
  set("group_size", 0, errc::malformed, {"group_size is '0'"});
  set("group_size", 48, errc::malformed, {"[8, 64]", "group size of 48"});
  set("method", 3, errc::malformed, {"method is '3'"});
  set("axis", 0, errc::unsupported, {"axis is '0'"});
  set("view_as_float", true, errc::unsupported, {"view_as_float"});
  set("awq_scale", 2, errc::unsupported, {"awq_scale"});
  set("original_dtype", "BOOL", errc::malformed, {"original_dtype is '\"BOOL\"'"});
  h.meta([](nlohmann::json& meta) { meta = 5; }, errc::malformed, {"meta is '5'"});
  h.meta([](nlohmann::json& meta) { meta.erase("method"); }, errc::malformed, {"method is 'null'"});
  h.meta(
      [](nlohmann::json& meta) {
        meta["shape"] = {16, 128};
      },
      errc::malformed, {"W_q", "[8, 64]", "expected [16, 64]"});
  h.meta_text("[1]", errc::malformed, {"is array, expected an object"});
  h.meta_text("{\"x\": 1}", errc::malformed, {"layer 'x'"});
  h.meta_text("{", errc::malformed, {"not valid JSON"});
  h.meta_text(std::string(100000, '['), errc::unsupported, {"100000 levels deep"});
  h.meta_text("{}", errc::malformed, {"belongs to no layer"});
  h.without_meta();
}

TEST_CASE("the tensors of a layer are checked") {
  const hostile h;
  const auto shaped = [](std::vector<std::size_t> to) { return [to](io::tensor_info& info) { info.shape = to; }; };
  const auto type = [](sinq::dtype to) { return [to](io::tensor_info& info) { info.type = to; }; };
  const auto rename = [](std::string to) { return [to](io::tensor_info& info) { info.name = to; }; };
  h.tensor(".W_q", shaped({7, 64}), {"W_q", "[7, 64]", "expected [8, 64]"});
  h.tensor(".W_q", shaped({8, 60}), {"W_q", "[8, 60]"});
  h.tensor(".W_q", shaped({512}), {"W_q", "[512]"});
  h.tensor(".W_q", type(sinq::dtype::i32), {"W_q", "I32, expected U8"});
  h.tensor(".meta.scale", shaped({15, 1}), {layer_name, "scale", "[15, 1]", "[16, 1]"});
  h.tensor(".meta.scale", shaped({16}), {"scale", "[16]"});
  h.tensor(".meta.scale", type(sinq::dtype::i16), {"meta.scale", "I16, expected F16 or BF16 or F32"});
  h.tensor(".meta.zero", shaped({2, 1}), {"zero", "[2, 1]"});
  h.tensor(".meta.zero", rename(""), {"meta.zero' is missing"});
  h.tensor(".meta.scale2", shaped({1, 127}), {"scale2", "[1, 127]", "128 elements"});
  h.tensor(".meta.scale2", rename(layer_name + std::string{".meta.scale3"}), {"scale3", "no known part"});
  h.tensor(".meta.scale2", rename("other.W_q"), {"other.W_q", "belongs to no layer"});
  h.tensor(".meta.scale2", rename(layer_name + std::string{".weight"}), {"plain and quantized"});
}
