#pragma once

#include <sinq/core/error.hpp>

#include <filesystem>
#include <span>
#include <string>

namespace engine {

/// One turn of a conversation.
struct chat_message {
  std::string role; ///< system, user or assistant
  std::string content;
};

/// How a prompt marks whose turn it is.
enum class chat_style {
  chatml,  ///< <|im_start|>role\ncontent<|im_end|>\n
  llama3,  ///< <|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|>
  mistral, ///< [INST] content [/INST] of the user, a space, content and the end token of the assistant
};

/// What a model's chat template says, as far as the styles need it.
struct chat_format {
  chat_style style = chat_style::chatml;
  std::string begin;                   ///< before everything
  std::string before_user = "[INST] "; ///< of mistral, where templates differ in spaces
  std::string after_user = " [/INST]"; ///< of mistral
  std::string after_assistant;         ///< of mistral
  std::string system; ///< not of mistral: what the system says if the first message is not the system's
  bool trim = false;  ///< white space around contents is left out
};

/// Recognises the template in `chat_template.jinja` or else `tokenizer_config.json` by the marks that it holds. The
/// template is not run: what it computes beside the marks (dates, tools, thoughts) is left out.
/// @errors  errc::not_found (no template), errc::io, errc::malformed (a file that breaks its format),
///          errc::unsupported (a template of another style); the message names the file
[[nodiscard]] sinq::result<chat_format> read_chat_format(const std::filesystem::path& directory);

/// The text up to where the assistant's next turn begins, with its special tokens: encode it without adding others.
/// mistral has no turn of the system: its content stands before that of the first user's turn, with an empty line
/// between.
/// @errors  errc::invalid_argument: no messages, another role, in mistral a system message that is not the first or is
///          not followed by the user's; names it
[[nodiscard]] sinq::result<std::string> chat_prompt(const chat_format& format, std::span<const chat_message> messages);

} // namespace engine
