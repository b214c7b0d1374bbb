#pragma once

#include "../core/error.hpp"

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace sinq::io {

/// Text from a stranger's file, fit for one line of an error message: in single quotes, control bytes as \xNN, and cut
/// after 160 bytes.
[[nodiscard]] inline std::string in_quotes(std::string_view text) {
  constexpr std::size_t longest_bytes = 160;
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out{"'"};
  for (const char c : text.substr(0, longest_bytes)) {
    const auto code = static_cast<unsigned char>(c);
    if (code >= 0x20 && code != 0x7f) {
      out.push_back(c);
      continue;
    }
    out.append("\\x");
    out.push_back(digits[code >> 4]);
    out.push_back(digits[code & 15u]);
  }
  return out.append(text.size() > longest_bytes ? "...'" : "'");
}

/// The operating system's refusal as an error: "PATH: cannot ACTION: REASON".
/// @param code     errno's value
/// @return         errc::not_found where the file does not exist, else errc::io
[[nodiscard]] inline error system_failure(const std::filesystem::path& path, std::string_view action, int code) {
  return make_error(code == ENOENT ? errc::not_found : errc::io, path.string(), ": cannot ", action, ": ",
                    std::generic_category().message(code));
}

/// True if both paths lead to the same existing file or directory, through whatever links: same device and inode.
[[nodiscard]] inline bool same_file(const std::filesystem::path& a, const std::filesystem::path& b) {
  struct stat first {};
  struct stat second {};
  return ::stat(a.c_str(), &first) == 0 && ::stat(b.c_str(), &second) == 0 && first.st_dev == second.st_dev &&
         first.st_ino == second.st_ino;
}

namespace detail {

/// An open file that is closed with its owner.
class file_descriptor {
public:
  file_descriptor() = default;
  explicit file_descriptor(int number) : number_{number} {}
  file_descriptor(file_descriptor&& other) noexcept : number_{std::exchange(other.number_, -1)} {}
  file_descriptor& operator=(file_descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~file_descriptor() {
    if (number_ >= 0) ::close(number_);
  }

  [[nodiscard]] int get() const { return number_; }
  [[nodiscard]] bool is_open() const { return number_ >= 0; }

private:
  int number_ = -1;
};

/// A file or directory that is removed with its owner, unless it was kept.
class temporary_path {
public:
  temporary_path() = default;
  explicit temporary_path(std::filesystem::path path) : path_{std::move(path)} {}
  temporary_path(temporary_path&& other) noexcept : path_{std::move(other.path_)} { other.path_.clear(); }
  temporary_path& operator=(temporary_path&& other) noexcept {
    path_.swap(other.path_);
    return *this;
  }
  ~temporary_path() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }

  [[nodiscard]] const std::filesystem::path& get() const { return path_; }
  /// Leaves the file where it is.
  void keep() { path_.clear(); }

private:
  std::filesystem::path path_;
};

/// The directory that a path's last component lies in; "." for a bare name.
[[nodiscard]] inline std::filesystem::path directory_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path{"."};
}

/// Hidden names beside a target, ".NAME.tmp-PID-N", a new one each time.
[[nodiscard]] inline std::filesystem::path temporary_name(const std::filesystem::path& directory,
                                                          std::string_view name) {
  static std::atomic<unsigned> counter{0};
  constexpr std::size_t longest_bytes = 200; // leaves room for the rest in the 255 bytes of a file name
  return directory / ("." + std::string{name.substr(0, longest_bytes)} + ".tmp-" + std::to_string(::getpid()) + "-" +
                      std::to_string(counter.fetch_add(1)));
}

/// Makes renames inside a directory durable.
[[nodiscard]] inline result<void> sync_directory(const std::filesystem::path& directory) {
  const file_descriptor opened{::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (!opened.is_open()) return system_failure(directory, "open the directory", errno);
  // EINVAL and ENOTSUP: a file system that has nothing to synchronise
  if (::fsync(opened.get()) != 0 && errno != EINVAL && errno != ENOTSUP)
    return system_failure(directory, "synchronise the directory", errno);
  return {};
}

/// Moves a file or directory within one file system, replacing a file of that name.
[[nodiscard]] inline result<void> rename_path(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) return system_failure(to, "put the finished output in place", errno);
  return {};
}

} // namespace detail

} // namespace sinq::io
