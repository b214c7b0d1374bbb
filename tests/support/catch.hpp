#pragma once

/// Catch2 of either major version, and a way to skip a test case that has what version 2 lacks: a reason.

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;
#else
#include <catch2/catch.hpp>
#endif

#include <iostream>

namespace sinq_test {

/// Number of test cases that were skipped in this run; main() turns it into exit status 77.
inline int skipped_cases = 0;

} // namespace sinq_test

/// Leaves the test case and prints why; ctest lists it as skipped if nothing failed before.
#define SINQ_SKIP(reason)                                                                                              \
  do {                                                                                                                 \
    ++sinq_test::skipped_cases;                                                                                        \
    std::cout << "SKIPPED: " << (reason) << std::endl;                                                                 \
    return;                                                                                                            \
  } while (false)
