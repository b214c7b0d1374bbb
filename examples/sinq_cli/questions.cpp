#include "questions.hpp"

#include <sinq/io/json_file.hpp>

#include <algorithm>
#include <charconv>
#include <span>
#include <string_view>

namespace sinq_cli {

namespace {

using nlohmann::json;
using sinq::errc;
using sinq::make_error;
using sinq::result;
using sinq::io::in_quotes;

constexpr const char* context_names[]{"query", "context", "question", "ctx"};
constexpr const char* choices_names[]{"choices", "endings"};
constexpr const char* gold_names[]{"gold", "answer", "label"};

/// The first member that is there of those names.
result<json::const_iterator> member(const json& object, std::span<const char* const> names) {
  for (const char* const name : names)
    if (const auto found = object.find(name); found != object.end()) return found;
  std::string all = names.front();
  for (const char* const name : names.subspan(1)) all += std::string{", "} + name;
  return make_error(errc::malformed, "has none of the members ", all);
}

result<void> read_context(const json& object, question& to) {
  const auto found = member(object, context_names);
  if (!found) return found.error();
  if (!(*found)->is_string())
    return make_error(errc::malformed, found->key(), " is ", (*found)->type_name(), ", expected a string");
  to.context = (*found)->get<std::string>();
  return {};
}

result<void> read_choices(const json& object, question& to) {
  const auto found = member(object, choices_names);
  if (!found) return found.error();
  if (!(*found)->is_array())
    return make_error(errc::malformed, found->key(), " is ", (*found)->type_name(), ", expected a list");
  for (const json& choice : **found) {
    if (!choice.is_string())
      return make_error(errc::malformed, found->key(), " has ", choice.type_name(), " at ", to.choices.size(),
                        ", expected a string");
    to.choices.push_back(choice.get<std::string>());
    if (to.choices.back().empty())
      return make_error(errc::malformed, found->key(), " has an empty string at ", to.choices.size() - 1);
  }
  if (to.choices.size() < 2)
    return make_error(errc::malformed, found->key(), " has ", to.choices.size(), " choices, expected at least 2");
  return {};
}

result<void> read_gold(const json& object, question& to) {
  const auto found = member(object, gold_names);
  if (!found) return found.error();
  const json& value = **found;
  const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  const char* const end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, to.gold);
  if (!(value.is_string() || value.is_number_integer()) || read.ec != std::errc{} || read.ptr != end ||
      to.gold >= to.choices.size())
    return make_error(errc::malformed, found->key(), " is ", in_quotes(text), ", expected the number of one of ",
                      to.choices.size(), " choices, from 0");
  return {};
}

result<question> read_question(std::string_view line) {
  const auto object = sinq::io::parse_json_object(line);
  if (!object) return object.error();
  question made;
  if (auto ok = read_context(*object, made); !ok) return std::move(ok).error();
  if (auto ok = read_choices(*object, made); !ok) return std::move(ok).error();
  if (auto ok = read_gold(*object, made); !ok) return std::move(ok).error();
  return made;
}

} // namespace

result<std::vector<question>> read_questions(const std::string& path, std::size_t most) {
  const auto file = sinq::io::mapped_file::open(path);
  if (!file) return file.error();
  const std::span<const sinq::byte> bytes = (*file)->bytes();
  std::string_view rest{reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  std::vector<question> questions;
  for (std::size_t number = 1; !rest.empty() && (most == 0 || questions.size() < most); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    auto made = read_question(line);
    if (!made) return std::move(made).error().in(path + ":" + std::to_string(number));
    made->line = number;
    questions.push_back(*std::move(made));
  }
  if (questions.empty()) return make_error(errc::invalid_argument, path, ": has no questions");
  return questions;
}

} // namespace sinq_cli
