#pragma once

#include <sinq/core/types.hpp>

#include <cstdint>
#include <memory>
#include <new>
#include <span>

#include <sys/mman.h>

namespace sinq_bench {

/// Memory in huge pages where the system gives them, zero at first; copies share it.
/// Measurements against the memory's speed need it: with pages of 4 KiB a walk waits for the page table.
class huge_memory {
public:
  explicit huge_memory(std::size_t bytes) : bytes_{bytes} {
    constexpr std::size_t page = std::size_t{2} << 20;
    const std::size_t mapped = (bytes / page + 2) * page;
    void* const start = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) throw std::bad_alloc{};
    const std::size_t skipped = page - reinterpret_cast<std::uintptr_t>(start) % page;
    sinq::byte* const begin = static_cast<sinq::byte*>(start) + skipped;
    data_ = {begin, [start, mapped](sinq::byte*) { munmap(start, mapped); }};
    static_cast<void>(madvise(begin, mapped - page, MADV_HUGEPAGE)); // refused: the walk is slower, not wrong
  }

  [[nodiscard]] std::span<sinq::byte> span() const { return {data_.get(), bytes_}; }
  [[nodiscard]] const std::shared_ptr<sinq::byte>& owner() const { return data_; }

private:
  std::shared_ptr<sinq::byte> data_;
  std::size_t bytes_;
};

} // namespace sinq_bench
