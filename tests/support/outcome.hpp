#pragma once

/// Calls that must succeed, or fail as they should.

#include "support/catch.hpp"

#include <sinq/core/error.hpp>

#include <string>
#include <utility>
#include <vector>

namespace sinq_test {

/// Fails the test unless the call succeeded; says why it did not.
template <class Result>
void require_ok(const Result& r) {
  if (!r) FAIL(r.error().message);
}

/// The value of a call that must succeed.
template <class T>
T value_of(sinq::result<T> r) {
  require_ok(r);
  return std::move(r).value();
}

/// Checks that a call failed with that code and a sentence that has all these pieces.
template <class Result>
void check_error(const Result& r, sinq::errc code, const std::vector<std::string>& pieces) {
  REQUIRE_FALSE(r);
  CAPTURE(r.error().message);
  CHECK(to_string(r.error().code) == to_string(code));
  for (const std::string& piece : pieces) {
    CAPTURE(piece);
    CHECK(r.error().message.find(piece) != std::string::npos);
  }
}

} // namespace sinq_test
