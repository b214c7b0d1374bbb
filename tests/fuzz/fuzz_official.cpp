/// Throws broken `.meta.json` files and configurations of the official format at its reader, and dequantizes what it
/// accepts. Two ways to run it: with clang's libFuzzer, or, built with SINQ_FUZZ_STANDALONE, as a test that mutates
/// valid files in a fixed order.

#include "mutate.hpp"

#include <sinq/io/checkpoint.hpp>
#include <sinq/io/official_writer.hpp>
#include <sinq/pack/pack.hpp>

#include <filesystem>
#include <fstream>

#include <unistd.h>

namespace {

using sinq_test::require;
namespace fs = std::filesystem;
namespace io = sinq::io;

fs::path scratch_directory() {
  return fs::temp_directory_path() / ("sinq-fuzz-official-" + std::to_string(::getpid()));
}

void write(const fs::path& path, std::string_view content) {
  std::ofstream{path, std::ios::binary}.write(content.data(), static_cast<std::streamsize>(content.size()));
}

/// A directory with two layers, one of which has quantized scales.
class official_directory {
public:
  official_directory() {
    fs::create_directories(path_);
    auto to = io::model_writer::create_directory(path_, {.file = {}, .always_index = true});
    require(to.has_value(), "no directory begun");
    const auto add = [&](const char* name, sinq::dtype type, std::vector<std::size_t> shape) {
      const std::vector<sinq::byte> bytes(io::tensor_bytes(type, shape).value(), sinq::byte{0x2c});
      require(to->add(name, type, shape, bytes).has_value(), "no tensor written");
    };
    add("a.W_q", sinq::dtype::u8, {8, 16});
    add("a.meta.scale", sinq::dtype::f16, {16, 1});
    add("a.meta.zero", sinq::dtype::f16, {16, 1});
    add("a.meta.scale2", sinq::dtype::f16, {1, 32});
    add("b.W_q", sinq::dtype::i32, {4, 16});
    for (const char* const part : {"b.meta.scale.s", "b.meta.scale.m"}) add(part, sinq::dtype::f16, {1, 2});
    for (const char* const part : {"b.meta.zero.s", "b.meta.zero.m"}) add(part, sinq::dtype::f16, {1, 1});
    add("b.meta.scale.x", sinq::dtype::u8, {16, 2});
    add("b.meta.zero.x", sinq::dtype::u8, {32, 1});
    require(to->write_side_file(std::string{io::model_meta_name}, std::as_bytes(std::span{meta_})).has_value() &&
                to->commit().has_value(),
            "no directory written");
  }
  official_directory(const official_directory&) = delete;
  official_directory& operator=(const official_directory&) = delete;
  ~official_directory() { fs::remove_all(path_); }

  [[nodiscard]] const std::string& meta() const { return meta_; }

  /// Opens it with that `.meta.json`; true if the reader accepted it, and then every quantized tensor can be used.
  [[nodiscard]] bool accepts(std::string_view meta) const {
    write(path_ / io::model_meta_name, meta);
    const auto opened = io::checkpoint::open(path_);
    if (!opened) {
      require(!opened.error().message.empty(), "an error without a message");
      return false;
    }
    for (const io::checkpoint_tensor& tensor : opened->tensors()) {
      if (!tensor.quantized) continue;
      const sinq::packed_matrix& p = opened->packed(tensor);
      require(sinq::check_packed(p).has_value(), "a packed matrix whose parts do not fit its format");
      require(sinq::dequantize(p).size() == p.format.rows * p.format.cols, "weights of another size");
    }
    return true;
  }

  /// Rotary frequencies of that configuration, if it has any.
  void try_config(std::string_view text) const {
    write(path_ / io::config_name, text);
    const auto config = io::load_json_object(path_ / io::config_name);
    if (config) static_cast<void>(io::rotary_frequencies(*config).has_value());
    fs::remove(path_ / io::config_name);
  }

private:
  fs::path path_ = scratch_directory();
  std::string meta_ = R"({"a": {"meta": {"nbits": 4, "group_size": 16, "shape": [8, 32], "axis": 1,
    "packing": "4bit_u8", "method": "sinq", "view_as_float": false}}, "b": {"meta": {"nbits": 3, "group_size": 16,
    "shape": [16, 32], "scale.shape": [32, 1], "zero.shape": [32, 1], "packing": "3bit_32", "method": "sinq_quantAux",
    "awq_scale": null}}, "norm": {}})";
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const official_directory directory;
  const std::string_view text{reinterpret_cast<const char*>(data), size};
  static_cast<void>(directory.accepts(text));
  directory.try_config(text);
  return 0;
}

#ifdef SINQ_FUZZ_STANDALONE

int main() {
  const official_directory directory;
  require(directory.accepts(directory.meta()), "a valid directory that is refused");
  const std::string config = R"({"model_type": "llama", "head_dim": 16, "rope_parameters": {"rope_type": "llama3",
    "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512}, "partial_rotary_factor": 0.5})";
  constexpr int rounds = 4'000;
  std::mt19937 random{20251122};
  int accepted = 0;
  for (int round = 0; round < rounds; ++round) {
    accepted += directory.accepts(sinq_test::mutate(directory.meta(), random)) ? 1 : 0;
    directory.try_config(sinq_test::mutate(config, random));
  }
  std::printf("%d of %d mutations are still valid\n", accepted, rounds);
  require(accepted > rounds / 100 && accepted < rounds, "mutations that are nearly all valid or all broken");
  return 0;
}

#endif
