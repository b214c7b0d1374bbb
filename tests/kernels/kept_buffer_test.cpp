#include "support/catch.hpp"

#include <sinq/kernels/kept_buffer.hpp>

#include <cstdint>
#include <thread>
#include <utility>

using sinq::detail::kept_buffer;

namespace {

struct element { // memory of this type is nobody else's
  std::int32_t value;
};

} // namespace

TEST_CASE("a thread keeps the memory of a buffer for the next one, and each buffer has its own") {
  constexpr std::size_t many = std::size_t{1} << 20; // which the system takes back and clears once it is freed
  for (std::int32_t round = 0; round < 3; ++round) {
    kept_buffer<element> large{many}, other{many};
    CHECK(large.data() != other.data());
    CHECK(reinterpret_cast<std::uintptr_t>(large.data()) % sinq::buffer_alignment_bytes == 0);
    if (kept_buffer<element>::keeps && round > 0) CHECK(large.data()[many / 2].value == round);
    large.data()[many / 2].value = other.data()[many / 2].value = round + 1;
  }
  std::thread{[] { CHECK(kept_buffer<element>{5}.size() == 5); }}.join();
  const kept_buffer<element> small{10};
  CHECK(small.size() == 10);
  if (kept_buffer<element>::keeps) CHECK(small.data()[many / 2].value == 3);
}

TEST_CASE("a buffer that is moved goes on with its memory") {
  kept_buffer<element> from{8};
  from.data()[7].value = 3;
  const element* const memory = from.data();
  kept_buffer<element> to;
  CHECK((to.size() == 0 && to.data() == nullptr));
  to = std::move(from);
  CHECK((to.size() == 8 && to.data() == memory && to.data()[7].value == 3));
  const kept_buffer<element> last{std::move(to)};
  CHECK((last.data() == memory && last.data()[7].value == 3));
}
