/// What a compiler calls before each access to memory under -fsanitize=thread. Sources are compiled with that option
/// but linked without it: these functions take the place of ThreadSanitizer's, and hand each access to watch.hpp.

#include "watch.hpp"

namespace {

namespace emulation = sinq_emulation::detail;

/// The check itself may run code that is instrumented too: the linker keeps one of two equal functions.
bool checking = false;

void note(const void* address, std::size_t bytes, bool is_write) {
  if (checking || emulation::current_thread == nullptr || sinq_emulation::fiber::on_running_stack(address)) return;
  checking = true;
  const emulation::problem found = emulation::check_access(address, bytes, is_write);
  checking = false;
  if (found.what != nullptr) emulation::fail({"memory", 0}, found.what, ", thread ", found.other_thread);
}

[[maybe_unused]] const bool started = [] {
  emulation::access_watcher = &note;
  return true;
}();

} // namespace

// NOLINTBEGIN
#define SINQ_ACCESS(bytes)                                                                                             \
  void __tsan_read##bytes(void* address) {                                                                             \
    note(address, bytes, false);                                                                                       \
  }                                                                                                                    \
  void __tsan_write##bytes(void* address) {                                                                            \
    note(address, bytes, true);                                                                                        \
  }                                                                                                                    \
  void __tsan_unaligned_read##bytes(void* address) {                                                                   \
    note(address, bytes, false);                                                                                       \
  }                                                                                                                    \
  void __tsan_unaligned_write##bytes(void* address) {                                                                  \
    note(address, bytes, true);                                                                                        \
  }                                                                                                                    \
  void __tsan_volatile_read##bytes(void* address) {                                                                    \
    note(address, bytes, false);                                                                                       \
  }                                                                                                                    \
  void __tsan_volatile_write##bytes(void* address) {                                                                   \
    note(address, bytes, true);                                                                                        \
  }

// Atomics are not watched, but must do their work.
#define SINQ_ATOMIC(bits, type)                                                                                        \
  type __tsan_atomic##bits##_load(const volatile type* a, int) {                                                       \
    return __atomic_load_n(a, __ATOMIC_SEQ_CST);                                                                       \
  }                                                                                                                    \
  void __tsan_atomic##bits##_store(volatile type* a, type v, int) {                                                    \
    __atomic_store_n(a, v, __ATOMIC_SEQ_CST);                                                                          \
  }                                                                                                                    \
  type __tsan_atomic##bits##_exchange(volatile type* a, type v, int) {                                                 \
    return __atomic_exchange_n(a, v, __ATOMIC_SEQ_CST);                                                                \
  }                                                                                                                    \
  type __tsan_atomic##bits##_fetch_add(volatile type* a, type v, int) {                                                \
    return __atomic_fetch_add(a, v, __ATOMIC_SEQ_CST);                                                                 \
  }                                                                                                                    \
  type __tsan_atomic##bits##_fetch_sub(volatile type* a, type v, int) {                                                \
    return __atomic_fetch_sub(a, v, __ATOMIC_SEQ_CST);                                                                 \
  }                                                                                                                    \
  type __tsan_atomic##bits##_fetch_and(volatile type* a, type v, int) {                                                \
    return __atomic_fetch_and(a, v, __ATOMIC_SEQ_CST);                                                                 \
  }                                                                                                                    \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile type* a, type* c, type v, int, int) {                     \
    return __atomic_compare_exchange_n(a, c, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) ? 1 : 0;                    \
  }                                                                                                                    \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile type* a, type* c, type v, int, int) {                       \
    return __atomic_compare_exchange_n(a, c, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) ? 1 : 0;                    \
  }

extern "C" {
SINQ_ATOMIC(8, std::uint8_t)
SINQ_ATOMIC(16, std::uint16_t)
SINQ_ATOMIC(32, std::uint32_t)
SINQ_ATOMIC(64, std::uint64_t)
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_read_range(void* address, std::size_t bytes) {
  note(address, bytes, false);
}
void __tsan_write_range(void* address, std::size_t bytes) {
  note(address, bytes, true);
}
SINQ_ACCESS(1)
SINQ_ACCESS(2)
SINQ_ACCESS(4)
SINQ_ACCESS(8)
SINQ_ACCESS(16)
}
// NOLINTEND
