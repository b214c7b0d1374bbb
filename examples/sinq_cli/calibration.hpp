#pragma once

#include <sinq/io/moments.hpp>

#include <CLI/CLI.hpp>

#include <optional>
#include <string>

namespace sinq_cli {

/// Adds --moments.
void add_moments_flag(CLI::App& app, std::string& path);

/// What --moments names, if it was given.
class calibration {
public:
  /// @param path  empty: there is none
  /// @errors      as io::moments_file::open
  [[nodiscard]] static sinq::result<calibration> open(const std::string& path);

  [[nodiscard]] bool given() const { return file_.has_value(); }

  /// What is known of the inputs of a weight; if it is not needed, nothing where there is no file, or nothing in it for
  /// that weight.
  /// @errors  as io::moments_file::find; errc::not_found, and errc::invalid_argument for no file, only if it is needed
  [[nodiscard]] sinq::result<std::optional<sinq::input_moments>> find(const std::string& weight, bool needed) const;

private:
  std::optional<sinq::io::moments_file> file_;
};

} // namespace sinq_cli
