#pragma once

#include "types.hpp"

#include <memory>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace sinq {

/// Memory starts on a cache line (and a whole AVX-512 register).
inline constexpr std::size_t buffer_alignment_bytes = 64;

/// Larger buffers start on a page of this size, where the system has such pages: a first touch costs as much for one of
/// them as for one of 4 KiB, and a walk down a column finds its address at once.
inline constexpr std::size_t huge_page_bytes = std::size_t{1} << 21;

namespace detail {

[[nodiscard]] constexpr std::size_t alignment_of(std::size_t bytes) {
  return bytes >= 2 * huge_page_bytes ? huge_page_bytes : buffer_alignment_bytes;
}

/// Memory that starts on a boundary of alignment_of(bytes).
[[nodiscard]] inline void* allocate_aligned(std::size_t bytes) {
  void* const memory = ::operator new (bytes, std::align_val_t{alignment_of(bytes)});
#if defined(__linux__)
  if (bytes >= 2 * huge_page_bytes) static_cast<void>(::madvise(memory, bytes, MADV_HUGEPAGE)); // only advice
#endif
  return memory;
}

} // namespace detail

/// An owned array of trivial elements that starts on a 64-byte boundary or a huge page; zeroed unless `uninitialized`
/// is asked for. Move-only, empty once moved from; memory comes from the aligned operator new, so bad_alloc is its only
/// failure.
template <class T>
class aligned_buffer {
  static_assert(std::is_trivially_copyable_v<T>);

public:
  struct uninitialized_t {};
  static constexpr uninitialized_t uninitialized{};

  aligned_buffer() = default;
  explicit aligned_buffer(std::size_t size) : aligned_buffer{size, uninitialized} {
    std::uninitialized_value_construct_n(data_.get(), size);
  }
  aligned_buffer(std::size_t size, uninitialized_t) : data_{allocate(size), release{size * sizeof(T)}}, size_{size} {}
  aligned_buffer(aligned_buffer&& from) noexcept
      : data_{std::move(from.data_)}, size_{std::exchange(from.size_, std::size_t{0})} {}
  aligned_buffer& operator=(aligned_buffer&& from) noexcept {
    data_ = std::move(from.data_);
    size_ = std::exchange(from.size_, std::size_t{0});
    return *this;
  }

  [[nodiscard]] T* data() { return data_.get(); }
  [[nodiscard]] const T* data() const { return data_.get(); }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] T& operator[](std::size_t i) {
    SINQ_ASSERT(i < size_);
    return data_.get()[i];
  }
  [[nodiscard]] const T& operator[](std::size_t i) const {
    SINQ_ASSERT(i < size_);
    return data_.get()[i];
  }
  [[nodiscard]] T* begin() { return data(); }
  [[nodiscard]] T* end() { return data() + size_; }
  [[nodiscard]] const T* begin() const { return data(); }
  [[nodiscard]] const T* end() const { return data() + size_; }
  [[nodiscard]] std::span<T> span() { return {data(), size_}; }
  [[nodiscard]] std::span<const T> span() const { return {data(), size_}; }

private:
  struct release {
    std::size_t bytes = 0;
    void operator()(T* p) const { ::operator delete (p, std::align_val_t{detail::alignment_of(bytes)}); }
  };
  static T* allocate(std::size_t size) {
    if (size > static_cast<std::size_t>(-1) / sizeof(T)) throw std::bad_array_new_length{};
    return static_cast<T*>(detail::allocate_aligned(size * sizeof(T)));
  }
  std::unique_ptr<T, release> data_;
  std::size_t size_ = 0;
};

/// Read-only bytes and whatever keeps them alive: an aligned buffer, or a mapped file that a checkpoint lies in.
/// Copies share the same memory.
class shared_bytes {
public:
  shared_bytes() = default;
  /// Takes a buffer over.
  explicit shared_bytes(aligned_buffer<byte>&& buffer) {
    auto owner = std::make_shared<aligned_buffer<byte>>(std::move(buffer));
    view_ = owner->span();
    owner_ = std::move(owner);
  }
  /// Borrows `view` for as long as `owner` lives.
  shared_bytes(std::span<const byte> view, std::shared_ptr<const void> owner) : view_{view}, owner_{std::move(owner)} {}

  [[nodiscard]] std::span<const byte> span() const { return view_; }
  [[nodiscard]] const byte* data() const { return view_.data(); }
  [[nodiscard]] std::size_t size() const { return view_.size(); }
  [[nodiscard]] bool empty() const { return view_.empty(); }
  /// The bytes as elements of T; they must be aligned for T and a whole number of them.
  template <class T>
  [[nodiscard]] std::span<const T> as() const {
    SINQ_ASSERT(reinterpret_cast<std::uintptr_t>(view_.data()) % alignof(T) == 0 && view_.size() % sizeof(T) == 0);
    return {reinterpret_cast<const T*>(view_.data()), view_.size() / sizeof(T)};
  }

private:
  std::span<const byte> view_;
  std::shared_ptr<const void> owner_;
};

} // namespace sinq
