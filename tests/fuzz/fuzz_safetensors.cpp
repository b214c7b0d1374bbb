/// Throws broken bytes at the readers of safetensors headers and of shard indexes. Two ways to run it:
/// with clang's libFuzzer (clang++ -fsanitize=fuzzer,address,undefined), or, built with SINQ_FUZZ_STANDALONE, as a test
/// that mutates valid files in a fixed order.

#include "mutate.hpp"

#include <sinq/io/safetensors_writer.hpp>
#include <sinq/io/weight_map.hpp>

#include <cstdio>

namespace {

using sinq_test::require;

/// What must hold of every header that was accepted; true if this one was.
bool check_header(std::span<const sinq::byte> file) {
  const sinq::io::safetensors_limits limits{.max_header_bytes = 1u << 16, .max_tensors = 64, .max_rank = 8};
  const auto header = sinq::io::parse_safetensors_header(file, limits);
  if (!header) {
    require(!header.error().message.empty(), "an error without a message");
    return false;
  }
  require(header->tensors.size() <= limits.max_tensors, "more tensors than allowed");
  const auto data = file.subspan(header->data_begin);
  std::size_t covered = 0;
  for (const sinq::io::tensor_info& tensor : header->tensors) {
    require(tensor.begin == covered && tensor.end >= tensor.begin && tensor.end <= data.size(), "a hole or an overlap");
    require(!tensor.name.empty() && tensor.shape.size() <= limits.max_rank, "a tensor beyond the limits");
    require(sinq::io::tensor_bytes(tensor.type, tensor.shape) == tensor.size_bytes(), "a size that is not the shape's");
    covered = tensor.end;
  }
  require(covered == data.size(), "bytes that belong to no tensor");

  // written again and read again, it is the same header
  const std::string json = sinq::io::detail::header_json(header->tensors, header->metadata);
  const std::uint64_t length = json.size();
  std::string again(reinterpret_cast<const char*>(&length), sizeof length);
  again.append(json).append(data.size(), '\0');
  const auto reread = sinq::io::parse_safetensors_header(std::as_bytes(std::span{again}));
  require(reread && reread->tensors.size() == header->tensors.size() && reread->metadata == header->metadata,
          "a header that is not the same when written again");
  for (std::size_t i = 0; i < header->tensors.size(); ++i)
    require(reread->tensors[i].name == header->tensors[i].name && reread->tensors[i].shape == header->tensors[i].shape,
            "a tensor that is not the same when written again");
  return true;
}

/// What must hold of every index that was accepted; true if this one was.
bool check_index(std::string_view text) {
  const auto map = sinq::io::parse_weight_map(text, {.max_header_bytes = 1u << 16, .max_tensors = 64});
  if (!map) {
    require(!map.error().message.empty(), "an error without a message");
    return false;
  }
  for (const auto& [tensor, file] : *map)
    require(!file.empty() && file.front() != '/' && file.find("../") != 0 && file.find("/../") == file.npos,
            "a shard outside the directory");
  return true;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  check_header(std::as_bytes(std::span{data, size}));
  check_index({reinterpret_cast<const char*>(data), size});
  return 0;
}

#ifdef SINQ_FUZZ_STANDALONE

int main() {
  static constexpr std::string_view headers[]{
      "{}",
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
      R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[16,24]}}   )",
      R"({"x":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"y":{"dtype":"I64","shape":[0,9],"data_offsets":[1,1]},)"
      R"("z":{"dtype":"F8_E4M3","shape":[23],"data_offsets":[1,24]}})"};
  constexpr std::string_view index =
      R"({"metadata":{"total_size":24},"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}})";
  constexpr int rounds = 20'000;
  std::mt19937 random{20250922};
  int accepted = 0;
  for (int round = 0; round < rounds; ++round) {
    std::string json = sinq_test::mutate(std::string{headers[random() % std::size(headers)]}, random);
    const std::uint64_t length = random() % 8 == 0 ? random() : json.size();
    std::string file(reinterpret_cast<const char*>(&length), sizeof length);
    file.append(json).append(random() % 4 == 0 ? random() % 32 : 24, '\1');
    accepted += check_header(std::as_bytes(std::span{file})) ? 1 : 0;
    accepted += check_index(sinq_test::mutate(std::string{index}, random)) ? 1 : 0;
  }
  std::printf("%d of %d mutations are still valid\n", accepted, 2 * rounds);
  require(accepted > rounds / 100 && accepted < rounds, "mutations that are nearly all valid or all broken");
  return 0;
}

#endif
