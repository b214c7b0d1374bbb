#include "text.hpp"

#include <sinq/io/file_system.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

namespace sinq_cli {

namespace {

/// Characters on the screen, each UTF-8 sequence counted as one.
std::size_t width(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0u) != 0x80u; }));
}

} // namespace

std::string one_line(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (code >= 0x20 && code != 0x7f)
      out.push_back(c);
    else
      out.append(fmt::format("\\x{:02x}", code));
  }
  return out;
}

std::string bytes_text(std::size_t bytes) {
  constexpr std::array units{"B", "KB", "MB", "GB", "TB", "PB", "EB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 999.95 && unit + 1 < units.size(); ++unit) value /= 1000;
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, units[unit]);
}

sinq::result<std::size_t> parse_bytes(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, double>, 14> units{{{"", 1},
                                                                       {"B", 1},
                                                                       {"K", 1e3},
                                                                       {"KB", 1e3},
                                                                       {"KiB", 0x1p10},
                                                                       {"M", 1e6},
                                                                       {"MB", 1e6},
                                                                       {"MiB", 0x1p20},
                                                                       {"G", 1e9},
                                                                       {"GB", 1e9},
                                                                       {"GiB", 0x1p30},
                                                                       {"T", 1e12},
                                                                       {"TB", 1e12},
                                                                       {"TiB", 0x1p40}}};
  double number = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  const auto* const found =
      std::find_if(units.begin(), units.end(), [&](const auto& entry) { return entry.first == unit; });
  const double bytes = found == units.end() ? 0 : number * found->second;
  if (code != std::errc{} || found == units.end() || !(bytes >= 1 && bytes <= 0x1p62))
    return sinq::make_error(sinq::errc::invalid_argument, sinq::io::in_quotes(text),
                            " is not a size of at least one byte, such as 5GB, 500MB or 2GiB");
  return static_cast<std::size_t>(bytes);
}

void text_table::add(std::vector<std::string> cells) {
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

std::string text_table::to_string() const {
  std::vector<std::size_t> widths;
  for (const column& c : columns_) widths.push_back(width(c.title));
  for (const auto& row : rows_)
    for (std::size_t k = 0; k < row.size(); ++k) widths[k] = std::max(widths[k], width(row[k]));
  std::string out;
  const auto add_line = [&](auto cell) {
    std::string line;
    for (std::size_t k = 0; k < columns_.size(); ++k) {
      const std::string text = cell(k);
      const std::string fill(widths[k] - std::min(widths[k], width(text)), ' ');
      line.append(k > 0 ? "  " : "").append(columns_[k].side == align::left ? text + fill : fill + text);
    }
    out.append(line, 0, line.find_last_not_of(' ') + 1).push_back('\n');
  };
  const auto add_rule_line = [&] { add_line([&](std::size_t k) { return std::string(widths[k], '-'); }); };
  add_line([&](std::size_t k) { return columns_[k].title; });
  add_rule_line();
  for (const auto& row : rows_)
    if (row.empty())
      add_rule_line();
    else
      add_line([&](std::size_t k) { return row[k]; });
  return out;
}

} // namespace sinq_cli
