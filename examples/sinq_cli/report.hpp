#pragma once

#include <sinq/io/output_file.hpp>

#include <nlohmann/json.hpp>

#include <filesystem>
#include <optional>
#include <string>

namespace sinq_cli {

/// What a command found, for machines: a JSON document that appears whole, or not at all.
class json_report {
public:
  /// Begins the file, so that one that cannot be written is known before the work; an empty path: no report is wanted.
  /// @errors those of output_file::create
  [[nodiscard]] static sinq::result<json_report> create(const std::string& path);

  /// Puts the document on the disk, under a temporary name.
  [[nodiscard]] sinq::result<void> write(const nlohmann::json& document);
  /// Gives it its name.
  [[nodiscard]] sinq::result<void> commit();

private:
  std::optional<sinq::io::output_file> file_;
};

/// The head of every document.
[[nodiscard]] nlohmann::json report_head(const char* command);

/// The most memory that this program had at once.
[[nodiscard]] std::size_t peak_memory_bytes();

} // namespace sinq_cli
