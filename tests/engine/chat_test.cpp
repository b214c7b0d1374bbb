#include "io/files.hpp"
#include "support/catch.hpp"
#include "support/outcome.hpp"

#include <engine/chat.hpp>
#include <sinq/io/json_file.hpp>

#include <algorithm>

using engine::chat_format;
using engine::chat_message;
using engine::chat_prompt;
using engine::chat_style;
using engine::read_chat_format;
using sinq::errc;
using sinq_test::check_error;
using sinq_test::scratch;
using sinq_test::value_of;
using sinq_test::write_file;

namespace {

const std::filesystem::path chat_data = std::filesystem::path{SINQ_TEST_DATA_DIR} / "engine" / "chat";

struct expected_prompt {
  std::string format;
  std::vector<chat_message> messages;
  std::string prompt;
};

std::vector<expected_prompt> expected_prompts() {
  const nlohmann::json document = value_of(sinq::io::load_json_object(chat_data / "expected.json"));
  std::vector<expected_prompt> all;
  for (const nlohmann::json& entry : document["cases"]) {
    expected_prompt& one = all.emplace_back(expected_prompt{entry["format"], {}, entry["prompt"]});
    for (const nlohmann::json& m : entry["messages"]) one.messages.push_back({m["role"], m["content"]});
  }
  return all;
}

/// How many prompts of a format differ from transformers', of how many.
std::pair<int, int> differing_prompts(const std::string& name, const chat_format& format) {
  int differing = 0;
  int compared = 0;
  for (const expected_prompt& expected : expected_prompts()) {
    if (expected.format != name) continue;
    ++compared;
    differing += value_of(chat_prompt(format, expected.messages)) != expected.prompt ? 1 : 0;
  }
  return {differing, compared};
}

chat_format format_of(const std::string& name) {
  return value_of(read_chat_format(chat_data / name));
}

} // namespace

TEST_CASE("chat prompts are those of transformers for templates of each style") {
  for (const char* const name : {"chatml", "chatml_system", "chatml_plain", "llama3", "llama3_system", "mistral",
                                 "mistral_literal", "mistral_tight"}) {
    CAPTURE(name);
    CHECK(differing_prompts(name, format_of(name)) == std::pair{0, 4});
  }
}

TEST_CASE("chat prompts are those of transformers for SmolLM2's template") {
#ifdef SINQ_SHARED_DIR
  const std::filesystem::path directory = std::filesystem::path{SINQ_SHARED_DIR} / "reference" / "smollm2";
  if (!std::filesystem::exists(directory)) SINQ_SKIP("no " + directory.string());
  CHECK(differing_prompts("smollm2", value_of(read_chat_format(directory))) == std::pair{0, 4});
#else
  SINQ_SKIP("no shared directory beside the checkout");
#endif
}

TEST_CASE("the comparison of chat prompts sees a wrong style, beginning, end, system message and white space") {
  chat_format wrong = format_of("chatml_system");
  wrong.system.clear();
  CHECK(differing_prompts("chatml_system", wrong) == std::pair{2, 4});
  wrong = format_of("chatml_system");
  wrong.begin.clear();
  CHECK(differing_prompts("chatml_system", wrong) == std::pair{4, 4});
  wrong = format_of("llama3");
  wrong.trim = false;
  CHECK(differing_prompts("llama3", wrong) == std::pair{2, 4});
  wrong.style = chat_style::chatml;
  CHECK(differing_prompts("llama3", wrong) == std::pair{4, 4});
  wrong = format_of("mistral");
  wrong.after_assistant.clear();
  CHECK(differing_prompts("mistral", wrong) == std::pair{2, 4});
}

TEST_CASE("chat style is recognised by marks, chat_template.jinja before tokenizer_config.json") {
  const scratch directory;
  write_file(directory / "tokenizer_config.json", R"({"chat_template": "<|start_header_id|>"})");
  CHECK(value_of(read_chat_format(directory.root())).style == chat_style::llama3);
  write_file(directory / "chat_template.jinja", "[INST]");
  CHECK(value_of(read_chat_format(directory.root())).style == chat_style::mistral);
  write_file(directory / "chat_template.jinja", "<|im_start|>");
  CHECK(value_of(read_chat_format(directory.root())).style == chat_style::chatml);
}

TEST_CASE("chat takes no text of a template for the system's unless it is written out") {
  const scratch directory;
  for (const char* const text : {"{{ '<|im_start|>system\\n' + content + '<|im_end|>' }}",
                                 "<|im_start|>system\n{{ content }}<|im_end|>", "'<|im_start|>system' 'a<|im_end|>'",
                                 "<|im_start|>system\nnever ends", "{{ '<|im_start|>system\\n' }}a<|im_end|>",
                                 "<|im_start|>system", "'<|im_start|>system\\", "'<|im_start|>system<|im_end|>'"}) {
    CAPTURE(text);
    write_file(directory / "chat_template.jinja", text);
    CHECK(value_of(read_chat_format(directory.root())).system.empty());
  }
  write_file(directory / "chat_template.jinja",
             "{{ '<|im_start|>system\\n' + content }}{{ \"<|im_start|>system\\na 'b' \\\"c\\\"<|im_end|>\" }}");
  CHECK(value_of(read_chat_format(directory.root())).system == "a 'b' \"c\"");
}

TEST_CASE("chat says which file has no template that it knows") {
  const scratch directory;
  check_error(read_chat_format(directory.root()), errc::not_found, {"tokenizer_config.json", "no chat_template"});
  write_file(directory / "tokenizer_config.json", R"({"chat_template": null})");
  check_error(read_chat_format(directory.root()), errc::not_found, {"tokenizer_config.json", "no chat_template"});
  write_file(directory / "tokenizer_config.json", R"({"chat_template": 3})");
  check_error(read_chat_format(directory.root()), errc::malformed, {"tokenizer_config.json", "number"});
  write_file(directory / "tokenizer_config.json", R"({"chat_template": [{"name": "default"}]})");
  check_error(read_chat_format(directory.root()), errc::malformed, {"tokenizer_config.json", "name and template"});
  write_file(directory / "tokenizer_config.json", R"({"chat_template": [{"name": "tools", "template": "[INST]"}]})");
  check_error(read_chat_format(directory.root()), errc::not_found, {"tokenizer_config.json", "named default"});
  write_file(directory / "tokenizer_config.json", R"({"chat_template": "### User:"})");
  check_error(read_chat_format(directory.root()), errc::unsupported, {"tokenizer_config.json", "unknown style"});
  for (const char* const text : {"<start_of_turn>", "[INST] <<SYS>>", "[SYSTEM_PROMPT][INST]", ""}) {
    write_file(directory / "chat_template.jinja", text);
    check_error(read_chat_format(directory.root()), errc::unsupported, {"chat_template.jinja", "unknown style"});
  }
  write_file(directory / "tokenizer_config.json", "[");
  check_error(read_chat_format(directory.root()), errc::malformed, {"tokenizer_config.json"});
  std::filesystem::remove(directory / "chat_template.jinja");
  std::filesystem::create_directory(directory / "chat_template.jinja");
  write_file(directory / "tokenizer_config.json", "{}");
  check_error(read_chat_format(directory.root()), errc::io, {"chat_template.jinja", "directory"});
}

TEST_CASE("chat names the message that a prompt cannot have") {
  const chat_format chatml{};
  chat_format mistral;
  mistral.style = chat_style::mistral;
  const chat_message system{"system", "Be kind."};
  const chat_message user{"user", "Hello"};
  const auto prompt = [](const chat_format& format, const std::vector<chat_message>& messages) {
    return chat_prompt(format, messages);
  };
  sinq_test::require_ok(prompt(chatml, {user, system}));
  check_error(prompt(chatml, {}), errc::invalid_argument, {"at least one message"});
  check_error(prompt(chatml, {user, {"tool", "1"}}), errc::invalid_argument, {"message 1", "'tool'"});
  check_error(prompt(mistral, {user, system}), errc::invalid_argument, {"message 1", "only first"});
  check_error(prompt(mistral, {system}), errc::invalid_argument, {"message 0", "before the user's"});
  check_error(prompt(mistral, {system, {"assistant", "Hi"}}), errc::invalid_argument, {"message 0"});
}

TEST_CASE("chat trims contents that are only white space to nothing") {
  chat_format format;
  format.trim = true;
  const std::vector<chat_message> blank{{"user", " \n\t"}};
  CHECK(value_of(chat_prompt(format, blank)) == "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n");
}
