#pragma once

#include <sinq/core/error.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace sinq_cli {

/// The text with control characters as \xNN, so that it can neither break a line nor steer a terminal.
[[nodiscard]] std::string one_line(std::string_view text);

/// "269.1 MB": three to four digits, decimal units.
[[nodiscard]] std::string bytes_text(std::size_t bytes);

/// Bytes of "5GB", "500 MB", "2GiB" or "1000000"; K, M, G, T alone are decimal.
/// @errors errc::invalid_argument (quotes the text)
[[nodiscard]] sinq::result<std::size_t> parse_bytes(std::string_view text);

/// A table for people: columns as wide as their widest cell, two spaces between them.
class text_table {
public:
  enum class align { left, right };
  struct column {
    std::string title;
    align side = align::right;
  };

  explicit text_table(std::vector<column> columns) : columns_{std::move(columns)} {}

  /// @pre as many cells as columns
  void add(std::vector<std::string> cells);
  /// A line across the table.
  void add_rule() { rows_.emplace_back(); }
  [[nodiscard]] bool empty() const { return rows_.empty(); }
  [[nodiscard]] std::string to_string() const;

private:
  std::vector<column> columns_;
  std::vector<std::vector<std::string>> rows_; ///< an empty one is a rule
};

} // namespace sinq_cli
