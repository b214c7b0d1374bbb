#pragma once

/// The tiny models of tests/golden/make_engine.py, and what transformers computed with them.

#include "support/catch.hpp"
#include "support/outcome.hpp"

#include <sinq/core/convert.hpp>
#include <sinq/core/matrix_view.hpp>
#include <sinq/io/safetensors.hpp>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

namespace sinq_test {

inline constexpr const char* golden_models[] = {"llama", "llama3", "linear", "mistral", "qwen2", "qwen3"};

inline std::filesystem::path golden_model(const std::string& name) {
  return std::filesystem::path{SINQ_TEST_DATA_DIR} / "engine" / name;
}

/// A tensor of whole numbers, I32 or I64.
inline std::vector<int> whole_numbers(const sinq::io::safetensors_file& file, const std::string& name) {
  const auto* const info = file.find(name);
  REQUIRE(info != nullptr);
  REQUIRE((info->type == sinq::dtype::i32 || info->type == sinq::dtype::i64));
  const std::size_t width = sinq::size_bytes(info->type);
  const auto bytes = file.data(*info);
  std::vector<int> values(info->size_bytes() / width);
  for (std::size_t n = 0; n < values.size(); ++n) {
    std::int64_t wide = 0; // little-endian, and no token is negative
    std::memcpy(&wide, bytes.data() + n * width, width);
    values[n] = static_cast<int>(wide);
  }
  return values;
}

/// A tensor of floats.
inline std::vector<float> real_numbers(const sinq::io::safetensors_file& file, const std::string& name) {
  const auto* const info = file.find(name);
  REQUIRE(info != nullptr);
  std::vector<float> values(info->size_bytes() / sinq::size_bytes(info->type));
  sinq::load_floats(file.data(*info).data(), info->type, values);
  return values;
}

/// What transformers computed for a tiny model.
struct expectation {
  std::size_t sequences, length, vocabulary;
  std::vector<std::vector<int>> tokens, continuation; ///< by sequence
  std::vector<float> logits;                          ///< [sequences x length x vocabulary]
  std::vector<float> frequencies;                     ///< [head_dim / 2]

  explicit expectation(const std::string& name) {
    const auto file = value_of(sinq::io::safetensors_file::open(golden_model(name) / "expected.safetensors"));
    logits = real_numbers(file, "logits");
    frequencies = real_numbers(file, "frequencies");
    const auto& shape = file.find("logits")->shape;
    sequences = shape.at(0), length = shape.at(1), vocabulary = shape.at(2);
    tokens = by_sequence(whole_numbers(file, "tokens"));
    continuation = by_sequence(whole_numbers(file, "continuation"));
  }

  [[nodiscard]] sinq::matrix_view<const float> of(std::size_t sequence) const {
    return {logits.data() + sequence * length * vocabulary, length, vocabulary};
  }

private:
  [[nodiscard]] std::vector<std::vector<int>> by_sequence(const std::vector<int>& all) const {
    const auto each = static_cast<std::ptrdiff_t>(all.size() / sequences);
    std::vector<std::vector<int>> rows;
    for (auto at = all.begin(); at != all.end(); at += each) rows.emplace_back(at, at + each);
    return rows;
  }
};

} // namespace sinq_test
