#include "signals.hpp"

#include <csignal>

namespace sinq_cli {

namespace {

volatile std::sig_atomic_t stop_asked = 0;

extern "C" void note_signal(int) {
  stop_asked = 1;
}

} // namespace

void catch_signals() {
  struct sigaction action {};
  action.sa_handler = note_signal;
  action.sa_flags = static_cast<int>(SA_RESTART | SA_RESETHAND);
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGINT, SIGTERM}) sigaction(signal, &action, nullptr);
}

bool goes_on() {
  return stop_asked == 0;
}

sinq::result<void> check_goes_on() {
  if (goes_on()) return {};
  return sinq::make_error(sinq::errc::cancelled, "cancelled by a signal");
}

} // namespace sinq_cli
