#pragma once

/// Scratch directories, hand-made safetensors files, and checks of what an error says.

#include "support/outcome.hpp"

#include <sinq/core/error.hpp>
#include <sinq/core/types.hpp>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

namespace sinq_test {

namespace fs = std::filesystem;

/// The file that says which tensor of a model is in which of its files.
inline constexpr const char* index_name = "model.safetensors.index.json";

/// An empty directory of its own for one test case, removed at the end.
class scratch {
public:
  scratch() {
    std::string pattern = (fs::temp_directory_path() / "sinq-io-XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    root_ = pattern;
  }
  scratch(const scratch&) = delete;
  scratch& operator=(const scratch&) = delete;
  ~scratch() {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }

  [[nodiscard]] const fs::path& root() const { return root_; }
  [[nodiscard]] fs::path operator/(const std::string& name) const { return root_ / name; }

private:
  fs::path root_;
};

inline fs::path write_file(const fs::path& path, const std::string& content) {
  std::ofstream out{path, std::ios::binary};
  out.write(content.data(), static_cast<std::streamsize>(content.size()));
  REQUIRE(out.flush());
  return path;
}

inline std::string read_file(const fs::path& path) {
  std::ifstream in{path, std::ios::binary};
  REQUIRE(in);
  return {std::istreambuf_iterator<char>{in}, {}};
}

/// Names of everything in a directory, hidden or not, sorted.
inline std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator{directory})
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

using names = std::vector<std::string>;

/// Bytes of a file with that header and that many bytes of data, 0, 1, 2, ... modulo 251.
inline std::string safetensors(const std::string& json, std::size_t data_bytes) {
  const std::uint64_t length = json.size();
  std::string content(reinterpret_cast<const char*>(&length), sizeof length);
  content += json;
  for (std::size_t i = 0; i < data_bytes; ++i) content.push_back(static_cast<char>(i % 251));
  return content;
}

inline std::span<const sinq::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span{text.data(), text.size()});
}

inline std::string text_of(std::span<const sinq::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Bytes that look random, the same for the same seed.
inline std::string some_bytes(std::size_t size, unsigned seed) {
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>((seed = seed * 1664525u + 1013904223u) >> 24);
  return bytes;
}

/// Runs a step in a child process; gives its wait status.
inline int in_child(const std::function<int()>& step) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(step());
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return status;
}

} // namespace sinq_test
