#include "tensor_choice.hpp"

#include <array>
#include <charconv>
#include <utility>

namespace sinq_cli {

using sinq::errc;
using sinq::make_error;
using sinq::result;
using sinq::io::in_quotes;

void add_choice_flags(CLI::App& app, choice_flags& flags) {
  app.add_option("--include", flags.include,
                 "Quantize matrices whose name matches REGEX too, even if they are embeddings, norms or heads")
      ->type_name("REGEX")
      ->expected(1)
      ->take_all();
  app.add_option("--exclude", flags.exclude, "Leave tensors whose name matches REGEX as they are")
      ->type_name("REGEX")
      ->expected(1)
      ->take_all();
  app.add_option("--bits-for", flags.bits_for, "Width of tensors whose name matches REGEX; the last match counts")
      ->type_name("REGEX=N")
      ->expected(1)
      ->take_all();
}

namespace {

/// "REGEX=N", split at the last '='.
result<std::pair<std::string, int>> parse_rule(const std::string& text) {
  const std::size_t at = text.rfind('=');
  int bits = 0;
  if (at == std::string::npos || at == 0)
    return make_error(errc::invalid_argument, "--bits-for ", in_quotes(text), ": expected REGEX=N");
  const char* const end = text.data() + text.size();
  if (const auto read = std::from_chars(text.data() + at + 1, end, bits); read.ec != std::errc{} || read.ptr != end)
    return make_error(errc::invalid_argument, "--bits-for ", in_quotes(text), ": ", in_quotes(text.substr(at + 1)),
                      " is not a number of bits");
  return std::pair{text.substr(0, at), bits};
}

/// A rule that does nothing is a typing error, which must not pass silently.
/// @param counts  whether tensor i, if it matches, makes the rule useful
template <class Counts>
result<void> check_used(const char* option, const std::string& text, const sinq::io::model_reader& model,
                        const char* of_what, Counts counts) {
  const auto rule = name_rule::make(text);
  if (!rule) return sinq::error{rule.error()}.in(option);
  for (std::size_t i = 0; i < model.tensors().size(); ++i)
    if (counts(i) && rule->matches(model.tensors()[i].info.name)) return {};
  return make_error(errc::invalid_argument, option, " ", in_quotes(text), " matches none of the ",
                    model.tensors().size(), " tensors", of_what);
}

} // namespace

bool is_weight_matrix(const sinq::io::tensor_info& tensor) {
  static const auto everything = sinq::quantization_plan::make(4, {""});
  return (*everything)({tensor.name, tensor.type, tensor.shape}).quantized();
}

result<name_rule> name_rule::make(const std::string& text) {
  auto plan = sinq::quantization_plan::make(4, {""}, {text});
  if (!plan) return std::move(plan).error();
  return name_rule{*std::move(plan)};
}

bool name_rule::matches(std::string_view name) const {
  constexpr std::array<std::size_t, 2> any_matrix{1, 1};
  return !excludes_matches_({name, sinq::dtype::f32, any_matrix}).quantized();
}

result<std::vector<sinq::plan_entry>> choose_tensors(const sinq::io::model_reader& model, int bits,
                                                     const choice_flags& flags) {
  std::vector<std::pair<std::string, int>> rules;
  for (const std::string& text : flags.bits_for) {
    auto rule = parse_rule(text);
    if (!rule) return std::move(rule).error();
    rules.push_back(*std::move(rule));
  }
  const auto plan = sinq::quantization_plan::make(bits, flags.include, flags.exclude, rules);
  if (!plan) return plan.error();
  std::vector<sinq::plan_entry> entries;
  for (const sinq::io::model_tensor& tensor : model.tensors())
    entries.push_back((*plan)({tensor.info.name, tensor.info.type, tensor.info.shape}));
  const auto any = [](std::size_t) { return true; };
  for (const std::string& rule : flags.include)
    if (auto used = check_used("--include", rule, model, "", any); !used) return std::move(used).error();
  for (const std::string& rule : flags.exclude)
    if (auto used = check_used("--exclude", rule, model, "", any); !used) return std::move(used).error();
  for (const auto& [rule, width] : rules)
    if (auto used = check_used("--bits-for", rule, model, " that are quantized",
                               [&](std::size_t i) { return entries[i].quantized(); });
        !used)
      return std::move(used).error();
  return entries;
}

} // namespace sinq_cli
