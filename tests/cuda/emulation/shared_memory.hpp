#pragma once

/// The shared memory of the running block. A block starts with all of it full of 0xff, which is NaN in every floating
/// type; between arrays lie strips that no one may touch: AddressSanitizer says where it happens, without it the end of
/// the block tells.

#include "block.hpp"

#include <new>

namespace sinq_emulation::detail {

inline constexpr std::size_t static_shared_limit = std::size_t{48} << 10;   ///< what any kernel may declare
inline constexpr std::size_t dynamic_shared_limit = std::size_t{227} << 10; ///< what a launch may ask for on sm_90
inline constexpr std::size_t shared_strip_bytes = 32;
inline constexpr std::size_t shared_alignment = 128;
inline constexpr unsigned char untouched = 0xff;

/// All bytes that a block can have, with room for strips.
[[nodiscard]] inline unsigned char* shared_pool() {
  static const std::unique_ptr<unsigned char[], void (*)(unsigned char*)> pool{
      static_cast<unsigned char*>(::operator new (2 * dynamic_shared_limit, std::align_val_t{shared_alignment})),
      [](unsigned char* bytes) {
        allow_memory(bytes, 2 * dynamic_shared_limit);
        ::operator delete (bytes, std::align_val_t{shared_alignment});
      }};
  return pool.get();
}
inline constexpr std::size_t shared_pool_bytes = 2 * dynamic_shared_limit;

/// Where the block's array `key` lies; it is made when the first thread asks.
[[nodiscard]] inline void* shared_array_at(const void* key, std::size_t bytes, const place& where) {
  block_state& block = *current_block;
  for (const shared_array& array : block.arrays)
    if (array.key == key) return shared_pool() + array.offset;
  const void* const dynamic_key = &block.dynamic_shared_bytes;
  std::size_t declared = key == dynamic_key ? 0 : bytes;
  for (const shared_array& array : block.arrays) declared += array.key == dynamic_key ? 0 : array.bytes;
  if (declared > static_shared_limit) fail(where, "more than 48 KiB of static shared memory");
  constexpr std::size_t step = shared_alignment;
  const std::size_t offset = (block.shared_bytes + shared_strip_bytes + step - 1) / step * step;
  block.arrays.push_back({key, offset, bytes});
  block.shared_bytes = offset + bytes;
  allow_memory(shared_pool() + offset, bytes);
  return shared_pool() + offset;
}

/// What a block finds.
inline void begin_shared_memory() {
  allow_memory(shared_pool(), shared_pool_bytes);
  std::memset(shared_pool(), untouched, shared_pool_bytes);
  forbid_memory(shared_pool(), shared_pool_bytes);
}

/// @return  whether the strips between and behind the arrays are as they were
[[nodiscard]] inline bool shared_strips_untouched(const block_state& block) {
  allow_memory(shared_pool(), shared_pool_bytes);
  std::size_t begin = 0;
  const auto untouched_until = [&](std::size_t end) {
    return std::all_of(shared_pool() + begin, shared_pool() + end,
                       [](unsigned char byte) { return byte == untouched; });
  };
  for (const shared_array& array : block.arrays) {
    if (!untouched_until(array.offset)) return false;
    begin = array.offset + array.bytes;
  }
  return untouched_until(std::min(begin + shared_alignment, shared_pool_bytes));
}

} // namespace sinq_emulation::detail

namespace sinq_emulation {

/// The array that SINQ_SHARED declares; each use of the macro is one Tag, and so one array.
template <class T, class Tag>
[[nodiscard]] T* shared(std::size_t count, Tag, const place& where = place::current()) {
  static_assert(std::is_trivially_copyable_v<T>);
  static const char key = 0;
  return static_cast<T*>(detail::shared_array_at(&key, count * sizeof(T), where));
}

/// The bytes that the launch asked for.
template <class T>
[[nodiscard]] T* dynamic_shared(const place& where = place::current()) {
  detail::block_state& block = *detail::current_block;
  return static_cast<T*>(detail::shared_array_at(&block.dynamic_shared_bytes, block.dynamic_shared_bytes, where));
}

} // namespace sinq_emulation

#define SINQ_SHARED(T, name, n) T* const name = sinq_emulation::shared<T>(n, [] {})
#define SINQ_DYNAMIC_SHARED(T, name) T* const name = sinq_emulation::dynamic_shared<T>()
