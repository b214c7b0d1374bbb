/// Throws broken tokenizer.json and tokenizer_config.json files at their readers, and encodes and decodes with what
/// they accept. Two ways to run it: with clang's libFuzzer, for which tests/golden/engine/tokenizer is a corpus, or,
/// built with SINQ_FUZZ_STANDALONE, as a test that mutates those files in a fixed order.

#include "mutate.hpp"

#include <engine/chat.hpp>
#include <engine/tokenizer.hpp>

#include <array>
#include <filesystem>
#include <fstream>
#include <set>

#include <unistd.h>

namespace {

using sinq_test::require;
namespace fs = std::filesystem;

/// Ordinary text, names of added tokens, scripts, broken UTF-8.
constexpr std::string_view text = "The cafe\u0301s of <bos> A\u030angstro\u0308m: it's 12345  \r\n\t sub subs <mask> "
                                  "\u6f22\u5b57 \U0001f469\u200d\U0001f4bb \xff\xe6\xbc <tool>";

class model_directory {
public:
  model_directory() { fs::create_directories(path_); }
  model_directory(const model_directory&) = delete;
  model_directory& operator=(const model_directory&) = delete;
  ~model_directory() { fs::remove_all(path_); }

  /// The directory with a file of these bytes.
  [[nodiscard]] const fs::path& with(const char* name, std::string_view content) const {
    std::ofstream{path_ / name, std::ios::binary}.write(content.data(), static_cast<std::streamsize>(content.size()));
    return path_;
  }

private:
  fs::path path_ = fs::temp_directory_path() / ("sinq-fuzz-tokenizer-" + std::to_string(::getpid()));
};

/// What must hold of every tokenizer that was accepted; true if this one was.
bool check_tokenizer(const model_directory& directory, std::string_view content) {
  const auto tokenizer = engine::tokenizer::open(directory.with("tokenizer.json", content));
  if (!tokenizer) {
    require(!tokenizer.error().message.empty(), "an error without a message");
    return false;
  }
  const auto tokens = tokenizer->encode(text);
  if (!tokens) {
    require(tokens.error().code == sinq::errc::unsupported, "an error other than that of a pattern");
    return true;
  }
  engine::text_stream stream{*tokenizer};
  std::string streamed;
  for (const int token : *tokens) {
    require(token >= 0 && static_cast<std::size_t>(token) < tokenizer->size(), "a token that there is not");
    streamed += stream.push(token);
  }
  require(streamed + stream.finish() == tokenizer->decode(*tokens), "a stream that says something else");
  require(tokenizer->prefix().size() <= tokens->size(), "a prefix that is not there");
  return true;
}

/// The same for the template of chats.
bool check_chat(const model_directory& directory, std::string_view content) {
  const auto format = engine::read_chat_format(directory.with("tokenizer_config.json", content));
  if (!format) {
    require(!format.error().message.empty(), "an error without a message");
    return false;
  }
  const std::array<engine::chat_message, 2> messages{{{"system", "Be kind."}, {"user", "Hello."}}};
  const auto prompt = engine::chat_prompt(*format, messages);
  require(prompt && prompt->find("Be kind.") != std::string::npos && prompt->find("Hello.") != std::string::npos,
          "a prompt without its messages");
  return true;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const model_directory directory;
  const std::string_view content{reinterpret_cast<const char*>(data), size};
  check_tokenizer(directory, content);
  check_chat(directory, content);
  return 0;
}

#ifdef SINQ_FUZZ_STANDALONE

#include <nlohmann/json.hpp>

namespace {

using nlohmann::json;

json load(const fs::path& path) {
  std::ifstream in{path, std::ios::binary};
  require(in.is_open(), "no golden file");
  return json::parse(in);
}

/// The golden tokenizers, and one of them with each of the other components.
std::vector<json> tokenizers(const fs::path& golden) {
  std::vector<json> all{load(golden / "tokenizer" / "gpt2.json"), load(golden / "tokenizer" / "llama3.json")};
  json variants = load(golden / "tokenizer" / "variants.json");
  for (json& variant : variants["variants"]) {
    variant.erase("ids");
    json& changed = all.emplace_back(all.front());
    changed.update(variant);
  }
  return all;
}

/// The golden configurations of chats, each with its template inside.
std::vector<json> chat_configurations(const fs::path& golden) {
  std::set<fs::path> directories; // in a fixed order
  for (const auto& entry : fs::directory_iterator{golden / "chat"})
    if (entry.is_directory()) directories.insert(entry.path());
  std::vector<json> all;
  for (const fs::path& directory : directories) {
    const fs::path config = directory / "tokenizer_config.json";
    json& made = all.emplace_back(fs::exists(config) ? load(config) : json::object());
    if (std::ifstream in{directory / "chat_template.jinja", std::ios::binary}; in.is_open())
      made["chat_template"] = std::string{std::istreambuf_iterator<char>{in}, {}};
  }
  return all;
}

/// The document with one of its members damaged: most of it are words and merges, which would else take all damage.
std::string damaged(const json& document, std::mt19937& random) {
  const std::size_t chosen = random() % document.size();
  std::string made = "{";
  for (std::size_t n = 0; const auto& [key, value] : document.items()) {
    if (n > 0) made += ",";
    made += json(key).dump() + ":" + (n == chosen ? sinq_test::mutate(value.dump(), random) : value.dump());
    ++n;
  }
  return made + "}";
}

void check_rate(const char* what, int accepted, int rounds) {
  std::printf("%d of %d mutations of %s are still valid\n", accepted, rounds, what);
  require(accepted > rounds / 100 && accepted < rounds, "mutations that are nearly all valid or all broken");
}

} // namespace

int main() {
  const model_directory directory;
  const fs::path golden = fs::path{SINQ_TEST_DATA_DIR} / "engine";
  const std::vector<json> files = tokenizers(golden);
  for (const json& file : files) require(check_tokenizer(directory, file.dump()), "a valid tokenizer that is refused");
  const std::vector<json> chats = chat_configurations(golden);
  for (const json& chat : chats) require(check_chat(directory, chat.dump()), "a valid chat template that is refused");

  constexpr int rounds = 2'000;
  std::mt19937 random{20250922};
  int accepted = 0, accepted_chats = 0;
  for (int round = 0; round < rounds; ++round) {
    accepted += check_tokenizer(directory, damaged(files[random() % files.size()], random)) ? 1 : 0;
    accepted_chats += check_chat(directory, damaged(chats[random() % chats.size()], random)) ? 1 : 0;
  }
  check_rate("tokenizers", accepted, rounds);
  check_rate("chat templates", accepted_chats, rounds);
  return 0;
}

#endif
