#pragma once

/// Fibers: functions on stacks of their own that hand the processor to each other when they say so. On x86-64 the
/// switch is a dozen instructions, elsewhere ucontext's; AddressSanitizer is told of each.

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <new>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SINQ_EMULATION_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define SINQ_EMULATION_ASAN 1
#endif

#if defined(SINQ_EMULATION_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace sinq_emulation {

/// Forbids any use of memory until it is allowed again; without AddressSanitizer it does nothing.
inline void forbid_memory([[maybe_unused]] const void* begin, [[maybe_unused]] std::size_t bytes) {
#if defined(SINQ_EMULATION_ASAN)
  ASAN_POISON_MEMORY_REGION(begin, bytes);
#endif
}
inline void allow_memory([[maybe_unused]] const void* begin, [[maybe_unused]] std::size_t bytes) {
#if defined(SINQ_EMULATION_ASAN)
  ASAN_UNPOISON_MEMORY_REGION(begin, bytes);
#endif
}

namespace detail {

#if defined(__x86_64__)
extern "C" void sinq_emulation_switch(void** left, void* entered);
// System V: the registers that a callee must keep go on the stack, the stack pointer is exchanged.
asm(R"(
  .text
  .weak sinq_emulation_switch
  .type sinq_emulation_switch, @function
sinq_emulation_switch:
  push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
  ret
  .size sinq_emulation_switch, . - sinq_emulation_switch
)");
#endif

/// Where one stack stands still.
struct context {
#if defined(__x86_64__)
  void* stack_pointer = nullptr;

  void prepare(char* bottom, std::size_t bytes, void (*entry)()) {
    constexpr std::size_t kept_registers = 6;
    auto** top = reinterpret_cast<void**>(reinterpret_cast<std::uintptr_t>(bottom + bytes) & ~std::uintptr_t{15});
    *--top = nullptr; // entry has no caller
    *--top = reinterpret_cast<void*>(entry);
    for (std::size_t k = 0; k < kept_registers; ++k) *--top = nullptr;
    stack_pointer = top;
  }
  void switch_to(context& entered) {
    sinq_emulation_switch(&stack_pointer, entered.stack_pointer);
  }
#else
  ucontext_t saved{};

  void prepare(char* bottom, std::size_t bytes, void (*entry)()) {
    getcontext(&saved);
    saved.uc_stack = {bottom, 0, bytes};
    saved.uc_link = nullptr;
    makecontext(&saved, entry, 0);
  }
  void switch_to(context& entered) {
    swapcontext(&saved, &entered.saved);
  }
#endif
};

} // namespace detail

/// One function on a stack of its own, with a page below it that no one may touch. It is resumed from outside, suspends
/// itself from inside, and need not come to an end: what its stack holds is then forgotten, not destroyed.
class fiber {
public:
  fiber() {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    mapped_bytes_ = page + stack_bytes;
    void* memory =
        mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc{};
    mprotect(memory, page, PROT_NONE);
    mapped_ = static_cast<char*>(memory);
    bottom_ = mapped_ + page;
  }
  fiber(const fiber&) = delete;
  fiber& operator=(const fiber&) = delete;
  ~fiber() {
    allow_memory(bottom_, stack_bytes);
    munmap(mapped_, mapped_bytes_);
  }

  /// The next resume() calls entry; entry must not return, but suspend() for ever.
  void prepare(void (*entry)()) {
    allow_memory(bottom_, stack_bytes);
    entry_ = entry;
    inside_.prepare(bottom_, stack_bytes, &fiber::enter);
  }

  /// Runs the fiber until it suspends itself.
  void resume() {
    running_ = this;
#if defined(SINQ_EMULATION_ASAN)
    __sanitizer_start_switch_fiber(&outside_fake_stack_, bottom_, stack_bytes);
#endif
    outside_.switch_to(inside_);
#if defined(SINQ_EMULATION_ASAN)
    __sanitizer_finish_switch_fiber(outside_fake_stack_, nullptr, nullptr);
#endif
  }

  /// Goes back to where the fiber was resumed.
  void suspend() {
#if defined(SINQ_EMULATION_ASAN)
    __sanitizer_start_switch_fiber(&inside_fake_stack_, outside_bottom_, outside_bytes_);
#endif
    inside_.switch_to(outside_);
    returned_inside();
  }

  /// Whether an address lies on the stack of the fiber that runs.
  [[nodiscard]] static bool on_running_stack(const void* address) {
    const auto* byte = static_cast<const char*>(address);
    return running_ != nullptr && byte >= running_->bottom_ && byte < running_->bottom_ + stack_bytes;
  }

private:
  static constexpr std::size_t stack_bytes = std::size_t{256} << 10;

  static void enter() {
    fiber& self = *running_;
    self.inside_fake_stack_ = nullptr;
    self.returned_inside();
    self.entry_();
    __builtin_unreachable();
  }
  void returned_inside() {
#if defined(SINQ_EMULATION_ASAN)
    __sanitizer_finish_switch_fiber(inside_fake_stack_, &outside_bottom_, &outside_bytes_);
#endif
  }

  static inline fiber* running_ = nullptr;

  char* mapped_ = nullptr;
  char* bottom_ = nullptr;
  std::size_t mapped_bytes_ = 0;
  void (*entry_)() = nullptr;
  detail::context inside_;
  detail::context outside_;
  [[maybe_unused]] void* inside_fake_stack_ = nullptr;
  [[maybe_unused]] void* outside_fake_stack_ = nullptr;
  [[maybe_unused]] const void* outside_bottom_ = nullptr;
  [[maybe_unused]] std::size_t outside_bytes_ = 0;
};

} // namespace sinq_emulation
