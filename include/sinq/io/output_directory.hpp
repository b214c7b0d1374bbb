#pragma once

#include "file_system.hpp"

#include <algorithm>
#include <span>
#include <vector>

namespace sinq::io {

/// A directory whose new files appear together: they are made in a hidden staging directory, which commit() renames to
/// the target, or empties into it if it exists already. Without commit() the destructor removes the staging directory.
class output_directory {
public:
  /// Begins to make what will be in `target`. The staging directory is a sibling of a new target and inside an existing
  /// one, so that it is on the same file system.
  /// @errors         errc::io, errc::not_found (no such parent, not writable, target is a file)
  [[nodiscard]] static result<output_directory> create(const std::filesystem::path& target) {
    // without a trailing slash; "." stays
    const std::filesystem::path path = target.has_filename() ? target : target.parent_path();
    struct stat status {};
    const bool exists = ::stat(path.c_str(), &status) == 0;
    if (exists && !S_ISDIR(status.st_mode))
      return make_error(errc::io, path.string(), ": cannot be the output directory: it exists and is not a directory");
    const std::filesystem::path where = exists ? path : detail::directory_of(path);
    while (true) {
      const auto staging = detail::temporary_name(where, exists ? "sinq" : path.filename().string());
      if (::mkdir(staging.c_str(), 0777) == 0) return output_directory{path, detail::temporary_path{staging}, exists};
      if (errno == EEXIST) continue; // left by a killed process that had our id
      return system_failure(path, exists ? "write into the directory" : "create the directory", errno);
    }
  }

  [[nodiscard]] const std::filesystem::path& target() const { return target_; }
  /// Where the files are made.
  [[nodiscard]] const std::filesystem::path& staging() const { return staging_.get(); }
  /// Whether the target existed before.
  [[nodiscard]] bool replaces() const { return replaces_; }

  /// Puts the staged files in place. In a directory that existed, files of the same names are replaced one by one.
  /// @param remove_first  names in an existing target that are removed before the first staged file is moved
  /// @param move_last     the staged file that makes the others valid, moved after them; may be empty
  /// @param remove_last   names in an existing target that are removed at the end
  /// @errors         errc::io
  [[nodiscard]] result<void> commit(std::span<const std::string> remove_first, const std::string& move_last,
                                    std::span<const std::string> remove_last) {
    if (auto done = detail::sync_directory(staging()); !done) return done;
    if (!replaces_) {
      if (auto done = detail::rename_path(staging(), target_); !done) return done;
      staging_.keep();
      return detail::sync_directory(detail::directory_of(target_));
    }
    auto names = staged_names();
    if (!names) return std::move(names).error();
    for (const std::string& name : *names)
      if (std::error_code ignored; std::filesystem::is_directory(target_ / name, ignored))
        return make_error(errc::io, (target_ / name).string(), ": cannot be written: it is a directory");
    if (auto done = remove(remove_first); !done) return done;
    std::stable_partition(names->begin(), names->end(), [&](const std::string& name) { return name != move_last; });
    for (const std::string& name : *names) {
      if (name == move_last)
        if (auto done = detail::sync_directory(target_); !done) return done;
      if (auto done = detail::rename_path(staging() / name, target_ / name); !done) return done;
    }
    if (auto done = detail::sync_directory(target_); !done) return done;
    if (auto done = remove(remove_last); !done) return done;
    std::error_code ignored;
    std::filesystem::remove(staging(), ignored);
    staging_.keep();
    return detail::sync_directory(target_);
  }

private:
  output_directory(std::filesystem::path target, detail::temporary_path staging, bool replaces)
      : target_{std::move(target)}, staging_{std::move(staging)}, replaces_{replaces} {}

  [[nodiscard]] result<std::vector<std::string>> staged_names() const {
    std::error_code failed;
    std::vector<std::string> names;
    std::filesystem::directory_iterator at{staging(), failed};
    for (; !failed && at != std::filesystem::directory_iterator{}; at.increment(failed))
      names.push_back(at->path().filename().string());
    if (failed) return system_failure(staging(), "list the directory", failed.value());
    std::sort(names.begin(), names.end());
    return names;
  }

  [[nodiscard]] result<void> remove(std::span<const std::string> names) const {
    if (names.empty()) return {};
    for (const std::string& name : names)
      if (::unlink((target_ / name).c_str()) != 0 && errno != ENOENT)
        return system_failure(target_ / name, "remove the earlier output", errno);
    return detail::sync_directory(target_);
  }

  std::filesystem::path target_;
  detail::temporary_path staging_;
  bool replaces_;
};

} // namespace sinq::io
