#include "chat.hpp"

#include <sinq/io/json_file.hpp>

#include <optional>
#include <string_view>
#include <utility>

namespace engine {
namespace {

using nlohmann::json;
using sinq::errc;
using sinq::make_error;
using sinq::result;
using sinq::io::in_quotes;

/// What stands around a role and a content.
struct turn_marks {
  std::string_view before_role, before_content, after_content, between;
};

turn_marks marks_of(chat_style style) {
  if (style == chat_style::chatml) return {"<|im_start|>", "\n", "<|im_end|>", "\n"};
  return {"<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>", ""};
}

/// A template and the file that it is from.
struct chat_template {
  std::filesystem::path path;
  std::string text;
};

/// tokenizer_config.json, an empty object if there is none.
result<json> read_tokenizer_config(const std::filesystem::path& path) {
  auto document = sinq::io::load_json_object(path);
  if (!document && document.error().code == errc::not_found) return json::object();
  return document;
}

/// The value of `chat_template`: a string, or a list of named ones, of which `default` counts.
result<std::string> template_in(const json& config) {
  const json value = config.value("chat_template", json{});
  if (value.is_string()) return value.get<std::string>();
  if (value.is_null()) return make_error(errc::not_found, "has no chat_template");
  if (!value.is_array())
    return make_error(errc::malformed, "chat_template is ", value.type_name(), ", expected a string");
  for (const json& entry : value) {
    if (!entry.is_object() || !entry.contains("name") || !entry.contains("template") || !entry["template"].is_string())
      return make_error(errc::malformed, "chat_template has an entry without name and template");
    if (entry["name"] == "default") return entry["template"].get<std::string>();
  }
  return make_error(errc::not_found, "chat_template has no entry named default");
}

result<chat_template> find_template(const std::filesystem::path& directory, const json& config) {
  const std::filesystem::path own = directory / "chat_template.jinja";
  const auto file = sinq::io::mapped_file::open(own);
  if (file) {
    const auto bytes = (*file)->bytes();
    return chat_template{own, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}};
  }
  if (file.error().code != errc::not_found) return file.error();
  const std::filesystem::path path = directory / "tokenizer_config.json";
  auto text = template_in(config);
  if (!text) return std::move(text).error().in(path.string());
  return chat_template{path, *std::move(text)};
}

/// A special token that a template puts in by its name or as it is; empty if it does neither.
std::string special_text(const chat_template& t, const json& config, const char* name,
                         std::span<const std::string_view> spellings) {
  if (t.text.find(name) != std::string::npos) {
    const json value = config.value(name, json{});
    const json content = value.is_object() ? value.value("content", json{}) : value;
    return content.is_string() ? content.get<std::string>() : std::string{};
  }
  for (const std::string_view spelling : spellings)
    if (t.text.find(spelling) != std::string::npos) return std::string{spelling};
  return {};
}

/// The text of a template from a place on: up to the end of the string if a quote stands before it, else up to the
/// next brace.
std::string literal_at(std::string_view text, std::size_t at) {
  const char before = at == 0 ? '\0' : text[at - 1];
  const bool quoted = before == '\'' || before == '"';
  std::string literal;
  for (; at < text.size() && text[at] != (quoted ? before : '{'); ++at) {
    if (quoted && text[at] == '\\' && at + 1 < text.size()) {
      const char escaped = text[++at];
      literal.push_back(escaped == 'n' ? '\n' : escaped == 't' ? '\t' : escaped);
    } else {
      literal.push_back(text[at]);
    }
  }
  return literal;
}

/// What a template lets the system say in a turn that is written out in it; empty if there is none.
std::string default_system(std::string_view text, const turn_marks& marks) {
  const std::string role = std::string{marks.before_role} + "system";
  const std::string start = role + std::string{marks.before_content};
  for (std::size_t at = text.find(role); at != std::string_view::npos;) {
    const std::size_t next = text.find(role, at + 1);
    const std::string literal = literal_at(text.substr(0, next), at);
    const std::size_t end = literal.find(marks.after_content);
    if (literal.starts_with(start) && end != std::string::npos && end >= start.size())
      return literal.substr(start.size(), end - start.size());
    at = next;
  }
  return {};
}

std::optional<chat_style> style_of(std::string_view text) {
  const auto has = [&](std::string_view mark) { return text.find(mark) != std::string_view::npos; };
  if (has("<|im_start|>")) return chat_style::chatml;
  if (has("<|start_header_id|>")) return chat_style::llama3;
  if (has("[INST]") && !has("<<SYS>>") && !has("[SYSTEM_PROMPT]")) return chat_style::mistral;
  return std::nullopt;
}

void read_mistral_marks(const chat_template& t, const json& config, chat_format& format) {
  constexpr std::string_view ends[] = {"</s>"};
  format.after_assistant = special_text(t, config, "eos_token", ends);
  if (t.text.find("[INST] ") == std::string::npos) format.before_user = "[INST]";
  if (t.text.find(" [/INST]") == std::string::npos) format.after_user = "[/INST]";
}

std::string_view without_space_around(std::string_view text) {
  constexpr std::string_view space = " \t\n\v\f\r";
  const std::size_t first = text.find_first_not_of(space);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(space) - first + 1);
}

result<void> check_messages(const chat_format& format, std::span<const chat_message> messages) {
  if (messages.empty()) return make_error(errc::invalid_argument, "a prompt needs at least one message");
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    if (role != "system" && role != "user" && role != "assistant")
      return make_error(errc::invalid_argument, "role of message ", i, " is ", in_quotes(role),
                        ", expected system, user or assistant");
    if (format.style != chat_style::mistral || role != "system") continue;
    if (i != 0 || messages.size() == 1 || messages[1].role != "user")
      return make_error(errc::invalid_argument, "message ", i,
                        " is the system's, which this model takes only first and before the user's");
  }
  return {};
}

std::string mistral_prompt(const chat_format& format, std::span<const chat_message> messages) {
  std::string prompt = format.begin;
  std::string system;
  for (const chat_message& m : messages) {
    const std::string content{format.trim ? without_space_around(m.content) : m.content};
    if (m.role == "system") system = content + "\n\n";
    if (m.role == "user") prompt += format.before_user + std::exchange(system, "") + content + format.after_user;
    if (m.role == "assistant") prompt += " " + content + format.after_assistant;
  }
  return prompt;
}

} // namespace

result<chat_format> read_chat_format(const std::filesystem::path& directory) {
  const auto config = read_tokenizer_config(directory / "tokenizer_config.json");
  if (!config) return config.error();
  const auto found = find_template(directory, *config);
  if (!found) return found.error();
  const auto style = style_of(found->text);
  if (!style)
    return make_error(errc::unsupported, found->path.string(),
                      ": a chat template of an unknown style, expected ChatML, Llama 3 or Mistral");
  constexpr std::string_view begins[] = {"<|begin_of_text|>", "<s>"};
  chat_format format;
  format.style = *style;
  format.begin = special_text(*found, *config, "bos_token", begins);
  if (*style == chat_style::mistral)
    read_mistral_marks(*found, *config, format);
  else
    format.system = default_system(found->text, marks_of(*style));
  for (const std::string_view trim : {"| trim", "|trim", ".strip()"})
    format.trim = format.trim || found->text.find(trim) != std::string::npos;
  return format;
}

result<std::string> chat_prompt(const chat_format& format, std::span<const chat_message> messages) {
  if (auto ok = check_messages(format, messages); !ok) return ok.error();
  if (format.style == chat_style::mistral) return mistral_prompt(format, messages);
  const turn_marks marks = marks_of(format.style);
  std::string prompt = format.begin;
  const auto begin_turn = [&](std::string_view role) {
    prompt.append(marks.before_role).append(role).append(marks.before_content);
  };
  const auto add_turn = [&](std::string_view role, std::string_view content) {
    begin_turn(role);
    prompt.append(content).append(marks.after_content).append(marks.between);
  };
  if (messages[0].role != "system" && !format.system.empty()) add_turn("system", format.system);
  for (const chat_message& m : messages) add_turn(m.role, format.trim ? without_space_around(m.content) : m.content);
  begin_turn("assistant");
  return prompt;
}

} // namespace engine
