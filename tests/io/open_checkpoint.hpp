#pragma once

#include "io/files.hpp"

#include <sinq/io/checkpoint.hpp>

namespace sinq_test {

/// A checkpoint that can be opened.
inline sinq::io::checkpoint open_checkpoint(const fs::path& path) {
  return value_of(sinq::io::checkpoint::open(path));
}

} // namespace sinq_test
