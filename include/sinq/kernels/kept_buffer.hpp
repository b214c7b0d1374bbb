#pragma once

#include "../core/aligned_buffer.hpp"

namespace sinq::detail {

/// Memory of one call, not initialized, that its thread keeps for the next one, so that the system need not give pages
/// anew each time: up to 16 MiB of each type, until the thread ends. Where addresses are checked, each call has its
/// own.
template <class T>
class kept_buffer {
public:
#if defined(__SANITIZE_ADDRESS__)
  static constexpr bool keeps = false;
#elif defined(__has_feature)
  static constexpr bool keeps = !__has_feature(address_sanitizer);
#else
  static constexpr bool keeps = true;
#endif

  kept_buffer() = default;
  explicit kept_buffer(std::size_t size) : memory_{take(size)}, size_{size} {}
  kept_buffer(kept_buffer&&) noexcept = default;
  kept_buffer& operator=(kept_buffer&& from) noexcept {
    std::swap(memory_, from.memory_);
    std::swap(size_, from.size_);
    return *this;
  }
  ~kept_buffer() {
    if (keeps && memory_.size() > kept().size() && memory_.size() * sizeof(T) <= most_bytes)
      kept() = std::move(memory_);
  }

  [[nodiscard]] T* data() {
    return memory_.data();
  }
  [[nodiscard]] const T* data() const {
    return memory_.data();
  }
  [[nodiscard]] std::size_t size() const {
    return size_;
  }

private:
  static constexpr std::size_t most_bytes = std::size_t{1} << 24;

  [[nodiscard]] static aligned_buffer<T>& kept() {
    thread_local aligned_buffer<T> memory;
    return memory;
  }
  [[nodiscard]] static aligned_buffer<T> take(std::size_t size) {
    aligned_buffer<T> memory = std::move(kept());
    if (memory.size() >= size) return memory;
    return aligned_buffer<T>{size, aligned_buffer<T>::uninitialized};
  }

  aligned_buffer<T> memory_;
  std::size_t size_ = 0;
};

} // namespace sinq::detail
