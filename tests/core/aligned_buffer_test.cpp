#include "support/catch.hpp"

#include <sinq/core/aligned_buffer.hpp>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

using sinq::aligned_buffer;
using sinq::shared_bytes;

TEST_CASE("a buffer starts on a 64-byte boundary whatever its size") {
  for (std::size_t size = 0; size < 200; ++size) {
    const aligned_buffer<std::uint8_t> buffer{size};
    CHECK(buffer.size() == size);
    CHECK(buffer.empty() == (size == 0));
    CHECK(reinterpret_cast<std::uintptr_t>(buffer.data()) % sinq::buffer_alignment_bytes == 0);
  }
}

TEST_CASE("a buffer is zeroed") {
  for (int round = 0; round < 8; ++round) {
    aligned_buffer<float> buffer{1000};
    CHECK(std::all_of(buffer.begin(), buffer.end(), [](float x) { return x == 0.0f; }));
    std::fill(buffer.begin(), buffer.end(), 7.0f);
  }
}

TEST_CASE("an uninitialized buffer can be filled and read through its span") {
  aligned_buffer<int> buffer{100, aligned_buffer<int>::uninitialized};
  std::iota(buffer.begin(), buffer.end(), 0);
  CHECK(buffer.span().size() == 100);
  CHECK(std::as_const(buffer).span()[99] == 99);
  CHECK(buffer[42] == 42);
}

TEST_CASE("a buffer is moved, not copied, and leaves nothing behind") {
  STATIC_REQUIRE_FALSE(std::is_copy_constructible_v<aligned_buffer<int>>);
  aligned_buffer<int> from{3};
  from[1] = 5;
  const int* memory = from.data();
  aligned_buffer<int> to = std::move(from);
  CHECK(to.data() == memory);
  CHECK(to.size() == 3);
  CHECK(to[1] == 5);
  CHECK(from.empty());
  CHECK(from.data() == nullptr);
  from = std::move(to);
  CHECK(from[1] == 5);
  CHECK(to.span().empty());
}

TEST_CASE("a buffer whose size overflows is refused before anything is allocated") {
  CHECK_THROWS_AS(aligned_buffer<double>(static_cast<std::size_t>(-1) / 4), std::bad_array_new_length);
}

TEST_CASE("shared bytes live as long as their last copy") {
  aligned_buffer<sinq::byte> buffer{4};
  buffer[2] = sinq::byte{9};
  const sinq::byte* memory = buffer.data();
  shared_bytes copy;
  CHECK(copy.empty());
  {
    const shared_bytes first{std::move(buffer)};
    copy = first;
  }
  CHECK(copy.data() == memory);
  CHECK(copy.size() == 4);
  CHECK(copy.span()[2] == sinq::byte{9});
}

TEST_CASE("shared bytes keep a foreign owner alive and release it once") {
  auto owner = std::make_shared<std::vector<sinq::byte>>(8, sinq::byte{1});
  const std::weak_ptr<const void> watch = owner;
  {
    const shared_bytes bytes{std::span<const sinq::byte>{*owner}.subspan(4), owner};
    owner.reset();
    CHECK_FALSE(watch.expired());
    CHECK(bytes.size() == 4);
    CHECK(bytes.span()[0] == sinq::byte{1});
  }
  CHECK(watch.expired());
}

TEST_CASE("shared bytes can be read as elements") {
  aligned_buffer<sinq::byte> buffer{8};
  buffer[4] = sinq::byte{1};
  const shared_bytes bytes{std::move(buffer)};
  const std::span<const std::uint32_t> words = bytes.as<std::uint32_t>();
  REQUIRE(words.size() == 2);
  CHECK(words[0] == 0);
  CHECK(words[1] == 1);
}
