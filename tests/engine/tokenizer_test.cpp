#include "engine/tokenizer_files.hpp"
#include "support/catch.hpp"

#include <random>

using engine::text_stream;
using engine::tokenizer;
using nlohmann::json;
using sinq_test::fnv1a;
using sinq_test::open_changed;
using sinq_test::same_page;
using sinq_test::same_tokens;
using sinq_test::tokenizer_json;
using sinq_test::tokenizer_path;
using sinq_test::value_of;

TEST_CASE("a page of text has the tokens and texts that the tokenizers package gives") {
  for (const std::string name : {"gpt2", "llama3"}) {
    CAPTURE(name);
    const tokenizer tokens = value_of(tokenizer::open(tokenizer_path(name + ".json")));
    CHECK(same_page(tokens, tokenizer_json("expected-" + name + ".json")));
  }
}

TEST_CASE("planted bugs: a rank, a token number, a flag or a special token that is wrong is noticed") {
  const json expected = tokenizer_json("expected-llama3.json");
  const json good = tokenizer_json("llama3.json");
  const auto noticed = [&](const json& document) {
    return !same_page(value_of(sinq_test::open_tokenizer(document.dump())), expected);
  };
  CHECK_FALSE(noticed(good));
  json bad = good;
  std::swap(bad["model"]["merges"][1], bad["model"]["merges"][67]);
  CHECK(noticed(bad));
  bad = good;
  std::swap(bad["model"]["vocab"]["the"], bad["model"]["vocab"]["a"]);
  CHECK(noticed(bad));
  bad = good;
  bad["model"]["ignore_merges"] = false;
  CHECK(noticed(bad));
  for (std::size_t i = 0; i < good["added_tokens"].size(); ++i) {
    CAPTURE(i);
    bad = good;
    bad["added_tokens"][i]["special"] = !bad["added_tokens"][i]["special"].get<bool>();
    CHECK(noticed(bad));
  }
  for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized"}) {
    CAPTURE(flag);
    bad = good;
    for (json& token : bad["added_tokens"]) token[flag] = false;
    CHECK(noticed(bad));
  }
  bad = good;
  bad["normalizer"] = nullptr;
  CHECK(noticed(bad));
  bad = good;
  bad["post_processor"] = nullptr;
  CHECK(noticed(bad));
  CHECK_FALSE(same_tokens({1, 2}, {1, 2, 3}));
  CHECK_FALSE(same_tokens({1, 2, 3}, {1, 2}));
  CHECK(same_tokens({}, {}));
}

TEST_CASE("every kind of component gives the tokens that the tokenizers package gives") {
  const json file = tokenizer_json("variants.json");
  const auto text = file["text"].get<std::string>();
  for (json variant : file["variants"]) {
    const auto expected = variant["ids"].get<std::vector<int>>();
    variant.erase("ids");
    CAPTURE(variant.dump());
    const tokenizer tokens = value_of(open_changed("gpt2.json", variant));
    CHECK(same_tokens(value_of(tokens.encode(text)), expected));
  }
}

TEST_CASE("SmolLM2's tokenizer gives the tokens of WikiText-2 that the tokenizers package gives") {
#ifdef SINQ_SHARED_DIR
  const sinq_test::fs::path reference = sinq_test::fs::path{SINQ_SHARED_DIR} / "reference";
  if (!sinq_test::fs::exists(reference / "smollm2" / "tokenizer.json"))
    SINQ_SKIP("SmolLM2's tokenizer.json is not beside this checkout");
  const tokenizer tokens = value_of(tokenizer::open(reference / "smollm2"));
  const json expected = tokenizer_json("smollm2.json");
  for (const auto& [name, chunks] : expected["files"].items()) {
    const std::string text = sinq_test::read_file(reference / "text" / name);
    std::size_t end = 0;
    for (std::size_t chunk = 0; chunk < chunks.size(); ++chunk) {
      CAPTURE(name, chunk);
      const std::size_t begin = end;
      for (int line = 0; line < 1000 && end < text.size(); ++line)
        end = std::min(text.find('\n', end), text.size() - 1) + 1;
      const auto ids = value_of(tokens.encode(std::string_view{text}.substr(begin, end - begin)));
      CHECK(ids.size() == chunks[chunk]["count"].get<std::size_t>());
      CHECK(fnv1a(ids) == std::stoull(chunks[chunk]["fnv1a"].get<std::string>(), nullptr, 16));
      CHECK(tokens.decode(ids, false) == text.substr(begin, end - begin));
    }
    CHECK(end == text.size());
  }
#else
  SINQ_SKIP("../shared/reference is not there");
#endif
}

TEST_CASE("planted bug: the hash of tokens sees one that is wrong, missing or out of place") {
  CHECK(fnv1a({}) == 0xcbf29ce484222325);
  CHECK(fnv1a({1, 2, 3}) != fnv1a({1, 2, 4}));
  CHECK(fnv1a({1, 2, 3}) != fnv1a({1, 3, 2}));
  CHECK(fnv1a({1, 2, 0}) != fnv1a({1, 2}));
}

TEST_CASE("text comes back from its tokens, whatever it is") {
  const tokenizer tokens = value_of(tokenizer::open(tokenizer_path("gpt2.json")));
  std::mt19937 random{20260214};
  for (int round = 0; round < 300; ++round) {
    std::string bytes = sinq_test::some_bytes(random() % 200, static_cast<unsigned>(random()));
    if (round % 2 == 0)
      for (char& c : bytes) c = static_cast<char>(c & 0x7f);
    CAPTURE(round);
    const std::string text = engine::replace_broken_utf8(bytes);
    const auto ids = value_of(tokens.encode(bytes));
    CHECK(same_tokens(value_of(tokens.encode(text)), ids));
    CHECK(tokens.decode(ids) == text);
  }
  const tokenizer llama3 = value_of(tokenizer::open(tokenizer_path("llama3.json")));
  for (const char c : {'a', ' ', '\n', '.'}) {
    const std::string text(200'000, c);
    CHECK(tokens.decode(value_of(tokens.encode(text))) == text);
    CHECK(llama3.decode(value_of(llama3.encode(text))) == text);
  }
}

TEST_CASE("a stream of tokens gives their text, and never half a character") {
  const tokenizer tokens = value_of(tokenizer::open(tokenizer_path("llama3.json")));
  for (const std::string& text : sinq_test::tokenizer_page())
    for (const bool skip_special : {false, true}) {
      const auto ids = value_of(tokens.encode(text));
      text_stream stream{tokens, skip_special};
      std::string streamed, bytes;
      for (const int id : ids) {
        streamed += stream.push(id);
        CHECK(engine::replace_broken_utf8(streamed) == streamed);
        if (!skip_special || !tokens.is_special(id)) bytes += tokens.bytes_of(id);
      }
      streamed += stream.finish();
      CHECK(streamed == tokens.decode(ids, skip_special));
      CHECK(engine::replace_broken_utf8(bytes) == streamed);
    }
  const auto byte = [&](char c) { return *tokens.find(engine::spell_bytes({&c, 1})); };
  text_stream stream{tokens};
  CHECK(stream.push(byte('\xe6')).empty());
  CHECK(stream.push(byte('\xbc')).empty());
  CHECK(stream.push(byte('\xa2')) == "漢");
  CHECK(stream.push(byte('\xf0')).empty());
  CHECK(stream.push(byte('x')) == "\uFFFDx");
  CHECK(stream.push(byte('\xe6')).empty());
  CHECK(stream.finish() == "\uFFFD");
  CHECK(stream.finish().empty());
}

TEST_CASE("tokens are found by their spelling, and numbers of none stand for nothing") {
  const tokenizer tokens = value_of(tokenizer::open(tokenizer_path("llama3.json")));
  const json file = tokenizer_json("llama3.json");
  for (const auto& [token, id] : file["model"]["vocab"].items()) CHECK(tokens.find(token) == id.get<int>());
  for (const json& token : file["added_tokens"]) {
    const int id = token["id"].get<int>();
    CHECK(tokens.find(token["content"].get<std::string>()) == id);
    CHECK(tokens.is_special(id) == token["special"].get<bool>());
    CHECK(static_cast<std::size_t>(id) < tokens.size());
  }
  CHECK(tokens.bytes_of(*tokens.find("Ġthe")) == " the");
  CHECK_FALSE(tokens.find(" the"));
  const int beyond = static_cast<int>(tokens.size());
  CHECK(tokens.find(file["added_tokens"].back()["content"].get<std::string>()) == beyond - 1);
  for (const int none : {-1, beyond, std::numeric_limits<int>::max(), std::numeric_limits<int>::min()}) {
    CHECK(tokens.bytes_of(none).empty());
    CHECK_FALSE(tokens.is_special(none));
    CHECK(tokens.decode(std::vector<int>{none}).empty());
  }
}
