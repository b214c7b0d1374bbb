#pragma once

#include <nlohmann/json.hpp>

#include <cstddef>
#include <string>

namespace sinq_bench {

/// What measurements were taken on.
struct machine {
  std::string processor; ///< as the processor calls itself
  std::size_t hardware_threads = 0;
  std::string instructions; ///< the instruction set in use, and extensions that count
  std::string compiler, huge_pages, date;
  std::size_t l2_bytes = 0, l3_bytes = 0; ///< 0: the system does not say

  [[nodiscard]] std::string to_string() const;
  [[nodiscard]] nlohmann::ordered_json to_json() const;
};

[[nodiscard]] machine this_machine();

} // namespace sinq_bench
