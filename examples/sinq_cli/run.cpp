#include "command.hpp"
#include "engine_flags.hpp"
#include "progress.hpp"
#include "signals.hpp"

#include <engine/chat.hpp>
#include <engine/sampler.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

namespace sinq_cli {

namespace {

struct run_flags {
  engine_flags engine;
  engine::sampling sampling;
  std::string model, prompt, system;
  std::string cache = "f16";
  std::size_t most = 256, context = 0;
  bool chat = false, quiet = false;
};

/// A generation as it goes: the model, what it has seen, and the text that it says.
class generation {
public:
  generation(const engine::model& model, const engine::tokenizer& tokenizer, const run_flags& f, std::size_t capacity)
      : model_{model}, tokenizer_{tokenizer}, f_{f},
        logits_(model.config().vocabulary), sample_{f.sampling}, cache_{model.config(), capacity,
                                                                        f.cache == "f32" ? sinq::dtype::f32
                                                                                         : sinq::dtype::f16} {}

  /// Reads the prompt, then writes tokens until one ends the text, or the room or the user does.
  [[nodiscard]] sinq::result<void> operator()(const std::vector<int>& prompt) {
    const stopwatch reading;
    std::vector<int> next = prompt;
    if (auto ok = read(next); !ok) return ok;
    prompt_seconds_ = reading.seconds();
    const stopwatch writing;
    engine::text_stream stream{tokenizer_};
    while (written_ < f_.most) {
      const int token = sample_(logits_);
      ++written_;
      if (ends(token)) break;
      say(stream.push(token));
      if (written_ == f_.most || cache_.size() == cache_.capacity()) break;
      next = {token};
      if (auto ok = read(next); !ok) return ok;
      if (auto on = check_goes_on(); !on) return on;
    }
    say(stream.finish() + "\n");
    seconds_ = writing.seconds();
    return {};
  }

  void print_speed(std::size_t prompt) const {
    fmt::print(stderr, "prompt: {} tokens, {:.1f} tokens/s; generation: {} tokens, {:.1f} tokens/s\n", prompt,
               static_cast<double>(prompt) / prompt_seconds_, written_, static_cast<double>(written_) / seconds_);
  }

private:
  [[nodiscard]] sinq::result<void> read(const std::vector<int>& tokens) {
    return model_.forward(tokens, cache_, {logits_.data(), 1, logits_.size()});
  }
  [[nodiscard]] bool ends(int token) const {
    const std::vector<int>& ends = model_.config().end_tokens;
    return std::find(ends.begin(), ends.end(), token) != ends.end();
  }
  static void say(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

  const engine::model& model_;
  const engine::tokenizer& tokenizer_;
  const run_flags& f_;
  std::vector<float> logits_;
  engine::sampler sample_;
  engine::kv_cache cache_;
  std::size_t written_ = 0;
  double prompt_seconds_ = 0, seconds_ = 0;
};

/// The prompt's tokens, in the template of the model's chats if asked for.
sinq::result<std::vector<int>> prompt_of(const run_flags& f, const engine::tokenizer& tokenizer) {
  if (!f.chat) return tokenizer.encode(f.prompt);
  const auto format = engine::read_chat_format(f.model);
  if (!format) return format.error();
  std::vector<engine::chat_message> messages;
  if (!f.system.empty()) messages.push_back({"system", f.system});
  messages.push_back({"user", f.prompt});
  const auto text = engine::chat_prompt(*format, messages);
  if (!text) return text.error();
  return tokenizer.encode(*text, false);
}

sinq::result<void> generate(const run_flags& f) {
  if (auto ok = engine::check(f.sampling); !ok) return ok;
  const auto tokenizer = engine::tokenizer::open(f.model);
  if (!tokenizer) return tokenizer.error();
  const auto prompt = prompt_of(f, *tokenizer);
  if (!prompt) return prompt.error();
  if (prompt->empty()) return sinq::make_error(sinq::errc::invalid_argument, "the prompt has no tokens");
  sinq::thread_pool threads{f.engine.threads};
  const auto model = open_model(f.model, f.engine, threads);
  if (!model) return model.error();
  const std::size_t context = f.context != 0 ? f.context : model->config().context;
  if (prompt->size() >= context)
    return sinq::make_error(sinq::errc::invalid_argument, "the prompt has ", prompt->size(),
                            " tokens, which leaves no room in a context of ", context);
  generation generate{*model, *tokenizer, f, std::min(context, prompt->size() + f.most)};
  if (auto ok = generate(*prompt); !ok) return ok;
  if (!f.quiet) generate.print_speed(prompt->size());
  return {};
}

} // namespace

command add_run(CLI::App& app) {
  const auto f = std::make_shared<run_flags>();
  CLI::App* const c = app.add_subcommand("run", "Let a language model go on with a text");
  c->add_option("MODEL", f->model, "A model's directory, float or quantized")->required();
  c->add_option("-p,--prompt", f->prompt, "The text to go on with")->required();
  CLI::Option* const chat = c->add_flag("--chat", f->chat, "The prompt is a message, which the model answers");
  c->add_option("--system", f->system, "A system message before it")->needs(chat);
  c->add_option("-n,--tokens", f->most, "Tokens to write, at most")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  c->add_option("--context", f->context, "Tokens of prompt and text, at most; without this, what the model knows")
      ->check(CLI::Range(2, 1 << 24));
  c->add_option("--temperature", f->sampling.temperature, "Divides the logits; 0: the likeliest token each time")
      ->capture_default_str();
  c->add_option("--top-k", f->sampling.top_k, "Choose among the k likeliest tokens; 0: all")->capture_default_str();
  c->add_option("--top-p", f->sampling.top_p, "Choose among the likeliest tokens that together reach that probability")
      ->capture_default_str();
  c->add_option("--seed", f->sampling.seed, "Of the choices; the same seed makes the same text")->capture_default_str();
  c->add_option("--cache", f->cache, "Type of keys and values")
      ->check(CLI::IsMember({"f16", "f32"}))
      ->capture_default_str();
  add_engine_flags(*c, f->engine);
  c->add_flag("--quiet", f->quiet, "Do not tell the speed");
  c->footer("The text goes to standard output as it is written, without the prompt; the speed goes to standard error.");
  return {c, [f] { return generate(*f); }};
}

} // namespace sinq_cli
