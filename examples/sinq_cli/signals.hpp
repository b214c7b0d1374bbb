#pragma once

#include <sinq/core/error.hpp>

namespace sinq_cli {

/// From now on SIGINT and SIGTERM are noted instead of ending the program; a second one ends it.
void catch_signals();

/// False once a signal has come: what a progress callback returns.
[[nodiscard]] bool goes_on();

/// errc::cancelled once a signal has come.
[[nodiscard]] sinq::result<void> check_goes_on();

} // namespace sinq_cli
