#pragma once

/// Checkpoints that can be opened, and damage to those that cannot.

#include "io/files.hpp"

#include <sinq/io/checkpoint.hpp>

namespace sinq_test {

/// A checkpoint that can be opened.
inline sinq::io::checkpoint open_checkpoint(const fs::path& path) {
  return value_of(sinq::io::checkpoint::open(path));
}

/// Replaces text in a file by text of the same length.
inline void edit(const fs::path& path, const std::string& from, const std::string& to) {
  std::string content = read_file(path);
  const std::size_t at = content.find(from);
  REQUIRE(at != std::string::npos);
  REQUIRE(from.size() == to.size());
  content.replace(at, from.size(), to);
  write_file(path, content);
}

/// Checks that a checkpoint is refused with that code and a sentence that has all these words.
inline void check_refused(const fs::path& path, sinq::errc code, const std::vector<std::string>& says) {
  check_error(sinq::io::checkpoint::open(path), code, says);
}

} // namespace sinq_test
