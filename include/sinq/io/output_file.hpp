#pragma once

#include "file_system.hpp"

#include "../core/aligned_buffer.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>

namespace sinq::io {

/// A file that appears whole or not at all: bytes go to a hidden file beside the target, ".NAME.tmp-PID-N", which
/// commit() makes durable and renames. Without commit() the destructor removes it.
/// After a failed write the object stays failed, and commit() gives that error again.
class output_file {
public:
  /// Begins to write what will be `target`; an existing regular file (or a link) of that name is replaced at commit.
  /// @param shown    what messages call it, where the target is itself a temporary name; empty: the target
  /// @errors         errc::io, errc::not_found (no such directory, not writable, target is a directory or a device)
  [[nodiscard]] static result<output_file> create(const std::filesystem::path& target,
                                                  const std::filesystem::path& shown = {}) {
    const std::filesystem::path& name = shown.empty() ? target : shown;
    struct stat status {};
    if (::stat(target.c_str(), &status) == 0 && !S_ISREG(status.st_mode))
      return make_error(errc::io, name.string(), ": cannot be written: it is ",
                        S_ISDIR(status.st_mode) ? "a directory" : "not a regular file");
    if (!target.has_filename()) return make_error(errc::io, name.string(), ": cannot be written: no file name");
    while (true) {
      const auto temporary = detail::temporary_name(detail::directory_of(target), target.filename().string());
      detail::file_descriptor file{::open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666)};
      if (!file.is_open() && errno == EEXIST) continue; // left by a killed process that had our id
      if (!file.is_open()) return system_failure(name, "create", errno);
      return output_file{target, name, std::move(file), detail::temporary_path{temporary}};
    }
  }

  [[nodiscard]] const std::filesystem::path& target() const { return target_; }
  /// What messages call the file.
  [[nodiscard]] const std::filesystem::path& shown() const { return shown_; }
  /// Bytes written so far.
  [[nodiscard]] std::size_t size() const { return flushed_bytes_ + buffered_bytes_; }

  /// Puts bytes at the end of the file.
  /// @errors         errc::io (disk full, file too large, ...: names the target and the system's reason)
  [[nodiscard]] result<void> write(std::span<const byte> bytes) {
    if (bytes.size() > buffer_.size() - buffered_bytes_) {
      if (auto done = flush(); !done) return done;
      if (bytes.size() >= buffer_.size()) {
        if (auto done = put(flushed_bytes_, bytes); !done) return done;
        flushed_bytes_ += bytes.size();
        return {};
      }
    }
    if (!bytes.empty()) std::memcpy(buffer_.data() + buffered_bytes_, bytes.data(), bytes.size());
    buffered_bytes_ += bytes.size();
    return {};
  }

  /// Replaces bytes that were written before.
  /// @errors         errc::io
  [[nodiscard]] result<void> overwrite(std::size_t offset, std::span<const byte> bytes) {
    SINQ_ASSERT(offset <= size() && bytes.size() <= size() - offset);
    if (auto done = flush(); !done) return done;
    return put(offset, bytes);
  }

  /// Moves everything from `offset` on up by `extra` bytes; what the gap holds is unspecified. Rewrites that part.
  /// @errors         errc::io
  [[nodiscard]] result<void> insert(std::size_t offset, std::size_t extra) {
    SINQ_ASSERT(offset <= size());
    if (auto done = flush(); !done) return done;
    // from the end down, so that no byte is overwritten before it was read
    for (std::size_t end = flushed_bytes_; end > offset;) {
      const std::size_t count = std::min(buffer_.size(), end - offset);
      const std::span<byte> chunk{buffer_.data(), count};
      if (auto done = get(end - count, chunk); !done) return done;
      if (auto done = put(end - count + extra, chunk); !done) return done;
      end -= count;
    }
    flushed_bytes_ += extra;
    return {};
  }

  /// Makes the file durable and gives it its name; the object is finished then.
  /// @errors         errc::io
  [[nodiscard]] result<void> commit() {
    if (auto done = flush(); !done) return done;
    if (::fsync(file_.get()) != 0) return system_failure(shown_, "synchronise", errno);
    if (auto done = detail::rename_path(temporary_.get(), target_); !done) return done;
    temporary_.keep();
    file_ = detail::file_descriptor{};
    return detail::sync_directory(detail::directory_of(target_));
  }

private:
  static constexpr std::size_t buffer_bytes = 1u << 18;

  output_file(std::filesystem::path target, std::filesystem::path shown, detail::file_descriptor file,
              detail::temporary_path temporary)
      : target_{std::move(target)}, shown_{std::move(shown)}, temporary_{std::move(temporary)}, file_{std::move(file)},
        buffer_{buffer_bytes, aligned_buffer<byte>::uninitialized} {}

  [[nodiscard]] result<void> flush() {
    if (failure_) return *failure_;
    if (auto done = put(flushed_bytes_, buffer_.span().first(buffered_bytes_)); !done) return done;
    flushed_bytes_ += std::exchange(buffered_bytes_, 0);
    return {};
  }

  [[nodiscard]] result<void> put(std::size_t offset, std::span<const byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t done = ::pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) return fail("write", done < 0 ? errno : ENOSPC);
      bytes = bytes.subspan(static_cast<std::size_t>(done));
      offset += static_cast<std::size_t>(done);
    }
    return {};
  }

  [[nodiscard]] result<void> get(std::size_t offset, std::span<byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t done = ::pread(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) return fail("read back", done < 0 ? errno : EIO);
      bytes = bytes.subspan(static_cast<std::size_t>(done));
      offset += static_cast<std::size_t>(done);
    }
    return {};
  }

  [[nodiscard]] error fail(std::string_view action, int code) {
    return failure_.emplace(system_failure(shown_, action, code));
  }

  std::filesystem::path target_;
  std::filesystem::path shown_;
  detail::temporary_path temporary_;
  detail::file_descriptor file_; ///< closed before the temporary file is removed
  aligned_buffer<byte> buffer_;  ///< bytes [flushed_bytes_, size()) of the file
  std::size_t flushed_bytes_ = 0;
  std::size_t buffered_bytes_ = 0;
  std::optional<error> failure_;
};

} // namespace sinq::io
