#pragma once

#include <sinq/io/model_reader.hpp>
#include <sinq/model/plan.hpp>

#include <CLI/CLI.hpp>

#include <string>
#include <vector>

namespace sinq_cli {

/// Which tensors are quantized, and to how many bits, as told on the command line.
struct choice_flags {
  std::vector<std::string> include;
  std::vector<std::string> exclude;
  std::vector<std::string> bits_for; ///< each REGEX=N
};

void add_choice_flags(CLI::App& app, choice_flags& flags);

/// Whether a tensor can be quantized at all, whatever its name.
[[nodiscard]] bool is_weight_matrix(const sinq::io::tensor_info& tensor);

/// A regular expression for names, matched as the plan matches them.
class name_rule {
public:
  /// @errors errc::invalid_argument (quotes the expression)
  [[nodiscard]] static sinq::result<name_rule> make(const std::string& text);
  [[nodiscard]] bool matches(std::string_view name) const;

private:
  explicit name_rule(sinq::quantization_plan plan) : excludes_matches_{std::move(plan)} {}
  sinq::quantization_plan excludes_matches_;
};

/// The plan's decision for each of the model's tensors, in their order.
/// @errors errc::invalid_argument (a rule that cannot be read, or that matches nothing, by its text)
[[nodiscard]] sinq::result<std::vector<sinq::plan_entry>> choose_tensors(const sinq::io::model_reader& model, int bits,
                                                                         const choice_flags& flags);

} // namespace sinq_cli
