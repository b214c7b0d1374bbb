#pragma once

#include "../core/error.hpp"
#include "../core/format.hpp"
#include "../core/types.hpp"

#include <array>
#include <cctype>
#include <optional>
#include <regex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sinq {

/// A tensor as a plan sees it.
struct plan_input {
  std::string_view name;
  dtype type = dtype::f32;
  std::span<const std::size_t> shape;
};

/// What becomes of one tensor.
struct plan_entry {
  int bits = 0;            ///< width to quantize to; 0: the tensor stays as it is
  std::string_view reason; ///< why it stays as it is, for people; empty if it is quantized

  [[nodiscard]] bool quantized() const { return bits != 0; }
};

/// Decides by name and shape which tensors of a model are quantized, and to how many bits.
/// By default: every matrix (two dimensions, at least one element) of a floating type, whatever its size, but for
/// embeddings, output heads (lm_head), norms and biases, which are told by their names.
/// A name is matched by a regular expression (ECMAScript) if any part of it matches; case counts.
class quantization_plan {
public:
  /// @param bits      width for every tensor that no rule of bits_for names
  /// @param include   quantize these too, if they are floating matrices
  /// @param exclude   leave these as they are; stronger than include
  /// @param bits_for  width for tensors that match; the last rule that matches counts
  /// @errors          errc::invalid_argument (an expression that cannot be read, by its text; a width)
  [[nodiscard]] static result<quantization_plan> make(int bits, const std::vector<std::string>& include = {},
                                                      const std::vector<std::string>& exclude = {},
                                                      const std::vector<std::pair<std::string, int>>& bits_for = {}) {
    quantization_plan plan;
    if (!is_supported_bits(bits))
      return make_error(errc::invalid_argument, "bits is ", bits, ", expected 2, 3, 4, 5, 6 or 8");
    plan.bits_ = bits;
    for (const std::string& text : include)
      if (auto done = compile(text, plan.include_); !done) return std::move(done).error();
    for (const std::string& text : exclude)
      if (auto done = compile(text, plan.exclude_); !done) return std::move(done).error();
    std::vector<std::regex> rules;
    for (const auto& [text, width] : bits_for) {
      if (!is_supported_bits(width))
        return make_error(errc::invalid_argument, "bits for \"", text, "\" is ", width,
                          ", expected 2, 3, 4, 5, 6 or 8");
      if (auto done = compile(text, rules); !done) return std::move(done).error();
      plan.bits_for_.emplace_back(rules.back(), width);
    }
    return plan;
  }

  /// What becomes of a tensor.
  [[nodiscard]] plan_entry operator()(const plan_input& tensor) const {
    if (!info(tensor.type).is_float) return {0, "not a floating type"};
    if (tensor.shape.size() != 2) return {0, "not a matrix"};
    if (tensor.shape[0] == 0 || tensor.shape[1] == 0) return {0, "empty"};
    if (tensor.name.size() > longest_name) return {0, "name too long to match"};
    const std::string name{tensor.name};
    if (matches(exclude_, name)) return {0, "excluded"};
    if (!matches(include_, name))
      if (const std::string_view kind = kind_left_alone(tensor.name); !kind.empty()) return {0, kind};
    int bits = bits_;
    for (const auto& [rule, width] : bits_for_)
      if (std::regex_search(name, rule)) bits = width;
    return {bits, {}};
  }

private:
  /// std::regex recurses once a character: names beyond this could exhaust the stack.
  static constexpr std::size_t longest_name = 1024;

  [[nodiscard]] static result<void> compile(const std::string& text, std::vector<std::regex>& to) {
    try {
      to.emplace_back(text);
      return {};
    } catch (const std::regex_error& failure) {
      return make_error(errc::invalid_argument, "\"", text, "\" is not a regular expression: ", failure.what());
    }
  }

  [[nodiscard]] static bool matches(const std::vector<std::regex>& rules, const std::string& name) {
    for (const std::regex& rule : rules)
      if (std::regex_search(name, rule)) return true;
    return false;
  }

  /// The kind of tensor that is left alone by default, or nothing: looks for words in the dotted parts of the name.
  [[nodiscard]] static std::string_view kind_left_alone(std::string_view name) {
    std::string lower{name};
    for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    const auto has = [&](std::string_view word) { return lower.find(word) != std::string::npos; };
    if (has("embed") || has("wte.") || has("wpe.") || lower == "wte" || lower == "wpe") return "embedding";
    if (has("lm_head") || lower == "output.weight") return "output head";
    if (has("norm") || has(".ln_") || lower.starts_with("ln_")) return "norm";
    if (lower.ends_with("bias") || lower.ends_with("inv_freq")) return "not a weight";
    return {};
  }

  int bits_ = 4;
  std::vector<std::regex> include_;
  std::vector<std::regex> exclude_;
  std::vector<std::pair<std::regex, int>> bits_for_;
};

} // namespace sinq
