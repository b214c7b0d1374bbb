#pragma once

/// Runs a piece of a test on every instruction set that is here.

#include <sinq/core/isa.hpp>

#include <vector>

namespace sinq_test {

/// Those that are here, scalar first.
[[nodiscard]] inline std::vector<sinq::isa> isas_here() {
  std::vector<sinq::isa> here;
  for (const sinq::isa_info& entry : sinq::isa_table)
    if (entry.is_here()) here.push_back(entry.id);
  return here;
}

/// Makes loops run on an instruction set until the end of the scope.
class on_isa {
public:
  explicit on_isa(sinq::isa id) : before_{sinq::current_isa()} { sinq::use_isa(id); }
  ~on_isa() { sinq::use_isa(before_); }
  on_isa(const on_isa&) = delete;
  on_isa& operator=(const on_isa&) = delete;

private:
  sinq::isa before_;
};

} // namespace sinq_test
