/// Throws broken native checkpoints at their reader, and dequantizes what it accepts. Two ways to run it: with clang's
/// libFuzzer, or, built with SINQ_FUZZ_STANDALONE, as a test that mutates valid files in a fixed order.

#include "mutate.hpp"

#include <sinq/io/checkpoint.hpp>
#include <sinq/pack/pack.hpp>
#include <sinq/quant/quantize.hpp>

#include <filesystem>
#include <fstream>

#include <unistd.h>

namespace {

using sinq_test::require;
namespace fs = std::filesystem;

fs::path scratch_file() {
  return fs::temp_directory_path() / ("sinq-fuzz-" + std::to_string(::getpid()) + ".safetensors");
}

/// Opens a file of these bytes; true if the reader accepted it, and then every quantized tensor can be used.
bool check_file(std::string_view content) {
  const fs::path path = scratch_file();
  std::ofstream{path, std::ios::binary}.write(content.data(), static_cast<std::streamsize>(content.size()));
  const auto opened = sinq::io::checkpoint::open(path);
  fs::remove(path);
  if (!opened) {
    require(!opened.error().message.empty(), "an error without a message");
    return false;
  }
  for (const sinq::io::checkpoint_tensor& tensor : opened->tensors()) {
    if (!tensor.quantized) continue;
    const sinq::packed_matrix& p = opened->packed(tensor);
    require(sinq::check_packed(p).has_value(), "a packed matrix whose parts do not fit its format");
    require(sinq::dequantize(p).size() == p.format.rows * p.format.cols, "weights of another size");
    const auto w = opened->panels(tensor);
    require(w && sinq::check_panels(*w), "panels whose parts do not fit their format");
  }
  return true;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  check_file({reinterpret_cast<const char*>(data), size});
  return 0;
}

#ifdef SINQ_FUZZ_STANDALONE

namespace {

/// The bytes of a small checkpoint with one quantized tensor of the given mode and layout and one plain tensor.
std::string valid_file(bool symmetric, sinq::method method, sinq::io::code_layout layout) {
  std::vector<float> weights(5 * 70);
  for (std::size_t n = 0; n < weights.size(); ++n) weights[n] = static_cast<float>(n % 37) * 0.01f - 0.2f;
  const auto q = sinq::quantize(sinq::matrix_view<const float>{weights.data(), 5, 70},
                                {.method = method, .bits = 3, .symmetric = symmetric});
  require(q.has_value(), "no quantized tensor");
  const auto packed = sinq::pack(*q);
  require(packed.has_value(), "no packed tensor");
  const fs::path path = scratch_file();
  sinq::io::model_writer_options options;
  options.file.header_reserve_bytes = 64;
  auto to = sinq::io::model_writer::create_file(path, options);
  require(to && sinq::io::begin_checkpoint(*to), "no checkpoint begun");
  const auto written = layout == sinq::io::code_layout::panels
                           ? sinq::io::write_panels(*to, "w", *sinq::to_panels(*packed), sinq::dtype::f32)
                           : sinq::io::write_packed(*to, "w", *packed, sinq::dtype::f32);
  require(written.has_value(), "no tensor written");
  require(to->add("bias", sinq::dtype::u8, std::vector<std::size_t>{3}, std::vector<sinq::byte>(3)).has_value(),
          "no plain tensor written");
  require(to->commit().has_value(), "no checkpoint written");
  std::ifstream in{path, std::ios::binary};
  std::string content{std::istreambuf_iterator<char>{in}, {}};
  fs::remove(path);
  return content;
}

} // namespace

int main() {
  using sinq::io::code_layout;
  const std::string files[]{valid_file(false, sinq::method::sinq, code_layout::canonical),
                            valid_file(true, sinq::method::rtn, code_layout::canonical),
                            valid_file(false, sinq::method::sinq, code_layout::panels),
                            valid_file(true, sinq::method::rtn, code_layout::panels)};
  for (const std::string& file : files) require(check_file(file), "a valid checkpoint that is refused");
  constexpr int rounds = 4'000;
  std::mt19937 random{20250922};
  int accepted = 0;
  for (int round = 0; round < rounds; ++round) {
    const std::string& file = files[random() % std::size(files)];
    std::uint64_t length = 0;
    std::memcpy(&length, file.data(), sizeof length);
    const std::string data = file.substr(sizeof length + length);
    const std::string header = sinq_test::mutate(file.substr(sizeof length, length), random);
    length = header.size();
    const std::string prefix(reinterpret_cast<const char*>(&length), sizeof length);
    accepted += check_file(prefix + header + data) ? 1 : 0;
  }
  std::printf("%d of %d mutations are still valid\n", accepted, rounds);
  require(accepted > rounds / 100 && accepted < rounds, "mutations that are nearly all valid or all broken");
  return 0;
}

#endif
