#pragma once

#include "file_system.hpp"

#include "../core/types.hpp"

#include <memory>
#include <span>

#include <sys/mman.h>

namespace sinq::io {

/// A regular file mapped into memory to be read; pages come in when they are touched.
/// As with any mapping, a file that someone else cuts short while it is in use raises SIGBUS: writers that rename a
/// finished file into place, as output_file does, never do that.
class mapped_file {
public:
  /// Maps the whole file; an empty one gives no bytes.
  /// @errors         errc::not_found, errc::io (names the path and the system's reason; a directory, a pipe or a device
  ///                 is refused without being read)
  [[nodiscard]] static result<std::shared_ptr<const mapped_file>> open(const std::filesystem::path& path) {
    // O_NONBLOCK: opening a pipe must not wait for its writer
    const detail::file_descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (!file.is_open()) return system_failure(path, "open", errno);
    struct stat status {};
    if (::fstat(file.get(), &status) != 0) return system_failure(path, "read its size", errno);
    if (S_ISDIR(status.st_mode)) return make_error(errc::io, path.string(), ": is a directory, not a file");
    if (!S_ISREG(status.st_mode)) return make_error(errc::io, path.string(), ": is not a regular file");
    const auto size = static_cast<std::size_t>(status.st_size);
    void* start = nullptr;
    if (size > 0) {
      start = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
      if (start == MAP_FAILED) return system_failure(path, "map into memory", errno);
    }
    return std::shared_ptr<const mapped_file>{new mapped_file{static_cast<const byte*>(start), size}};
  }

  mapped_file(const mapped_file&) = delete;
  mapped_file& operator=(const mapped_file&) = delete;
  ~mapped_file() {
    if (size_ > 0) ::munmap(const_cast<byte*>(start_), size_);
  }

  [[nodiscard]] std::span<const byte> bytes() const { return {start_, size_}; }

  /// Hints that these bytes are no longer needed, so that they stop counting as this program's memory; reading them
  /// again brings them back.
  void release(std::size_t offset, std::size_t size) const {
    if (offset >= size_ || size == 0) return;
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    const std::size_t begin = offset / page * page;
    const std::size_t end = size < size_ - offset ? offset + size : size_;
    ::madvise(const_cast<byte*>(start_) + begin, end - begin, MADV_DONTNEED);
  }

private:
  mapped_file(const byte* start, std::size_t size) : start_{start}, size_{size} {}

  const byte* start_;
  std::size_t size_;
};

} // namespace sinq::io
