#include "engine/tokenizer_files.hpp"
#include "fuzz/mutate.hpp"
#include "support/catch.hpp"

using engine::tokenizer;
using nlohmann::json;
using sinq::errc;
using sinq_test::check_error;
using sinq_test::open_changed;
using sinq_test::open_tokenizer;
using sinq_test::split_by;
using sinq_test::tokenizer_json;
using sinq_test::tokenizer_path;
using sinq_test::value_of;

namespace {

/// One value of a golden tokenizer that is changed, and what the error must name.
struct broken_tokenizer {
  const char* at;
  json value;
  errc code;
  std::vector<std::string> pieces;
};

void check_broken(const std::string& name, const std::vector<broken_tokenizer>& all) {
  const json good = tokenizer_json(name);
  for (const auto& [at, value, code, pieces] : all) {
    CAPTURE(at, value.dump());
    json document = good;
    document[json::json_pointer{at}] = value;
    std::vector<std::string> expected = pieces;
    expected.emplace_back("tokenizer.json: ");
    check_error(open_tokenizer(document.dump()), code, expected);
  }
}

json sequence_of(const char* parts, const json& list) {
  return {{"type", "Sequence"}, {parts, list}};
}

} // namespace

TEST_CASE("a tokenizer that is not there, or no tokenizer, is an error with its path") {
  const sinq_test::scratch directory;
  check_error(tokenizer::open(directory / "none"), errc::not_found, {(directory / "none").string()});
  check_error(tokenizer::open(directory.root()), errc::not_found, {(directory / "tokenizer.json").string()});
  check_error(open_tokenizer(""), errc::malformed, {"tokenizer.json: ", "JSON"});
  check_error(open_tokenizer("[]"), errc::malformed, {"array", "expected an object"});
  check_error(open_tokenizer("{}"), errc::unsupported, {"pre_tokenizer: has no ByteLevel"});
  check_error(open_tokenizer(std::string(40, '[')), errc::unsupported, {"nested 40 levels"});
}

TEST_CASE("components of other kinds are refused by name") {
  const json metaspace{{"type", "Metaspace"}, {"replacement", "_"}};
  const json byte_level = tokenizer_json("gpt2.json")["pre_tokenizer"];
  check_broken(
      "gpt2.json",
      {{"/normalizer", {{"type", "Lowercase"}}, errc::unsupported, {"normalizer: ", "'Lowercase'"}},
       {"/normalizer", sequence_of("normalizers", {{{"type", "NFKC"}}}), errc::unsupported, {"normalizer: ", "'NFKC'"}},
       {"/normalizer", 1, errc::malformed, {"normalizer: ", "number"}},
       {"/normalizer", sequence_of("normalizers", 1), errc::malformed, {"normalizer: ", "normalizers is number"}},
       {"/pre_tokenizer", nullptr, errc::unsupported, {"pre_tokenizer: has no ByteLevel"}},
       {"/pre_tokenizer", metaspace, errc::unsupported, {"pre_tokenizer: ", "'Metaspace'"}},
       {"/pre_tokenizer", sequence_of("pretokenizers", json::array()), errc::unsupported, {"has no ByteLevel"}},
       {"/pre_tokenizer",
        sequence_of("pretokenizers", {byte_level, metaspace}),
        errc::unsupported,
        {"'Metaspace' after"}},
       {"/pre_tokenizer",
        sequence_of("pretokenizers", {byte_level, byte_level}),
        errc::unsupported,
        {"'ByteLevel' after"}},
       {"/pre_tokenizer", {{"type", "Digits"}}, errc::malformed, {"individual_digits is null"}},
       {"/pre_tokenizer/add_prefix_space", 1, errc::malformed, {"add_prefix_space is number"}},
       {"/pre_tokenizer/use_regex", "yes", errc::malformed, {"use_regex is string"}},
       {"/decoder", nullptr, errc::unsupported, {"decoder: ", "'null'"}},
       {"/decoder", {{"type", "WordPiece"}}, errc::unsupported, {"decoder: ", "'WordPiece'"}},
       {"/decoder", sequence_of("decoders", {byte_level, byte_level}), errc::unsupported, {"decoder: ", "2 parts"}},
       {"/decoder", sequence_of("decoders", {{{"type", "Fuse"}}}), errc::unsupported, {"decoder: ", "'Fuse'"}},
       {"/post_processor", {{"type", "BertProcessing"}}, errc::unsupported, {"post_processor: ", "'BertProcessing'"}},
       {"/post_processor", {{"kind", 1}}, errc::malformed, {"post_processor: ", "type is null"}},
       {"/model/type", "Unigram", errc::unsupported, {"model: ", "'Unigram'"}},
       {"/model/byte_fallback", true, errc::unsupported, {"model: ", "byte_fallback"}},
       {"/model/dropout", 0.5, errc::unsupported, {"model: ", "dropout", "0.5"}},
       {"/model/continuing_subword_prefix", "##", errc::unsupported, {"continuing_subword_prefix", "##"}},
       {"/model/end_of_word_suffix", "</w>", errc::unsupported, {"end_of_word_suffix", "</w>"}}});
}

TEST_CASE("vocabularies, merges and added tokens that cannot be are refused by name") {
  check_broken("gpt2.json",
               {{"/model", nullptr, errc::malformed, {"model: is null"}},
                {"/model/vocab", json::array(), errc::malformed, {"vocab is array"}},
                {"/model/vocab", json::object(), errc::malformed, {"vocab is empty"}},
                {"/model/vocab/a", -1, errc::malformed, {"'a'", "'-1'"}},
                {"/model/vocab/a", 1.5, errc::malformed, {"'a'", "'1.5'"}},
                {"/model/vocab/a", "1", errc::malformed, {"'a'"}},
                {"/model/vocab/a", 1 << 21, errc::malformed, {"'a'", "'2097152'", "expected 0 to 2097151"}},
                {"/model/vocab/a", 18446744073709551615u, errc::malformed, {"'a'", "'18446744073709551615'"}},
                {"/model/vocab/a", 3, errc::malformed, {"has the number 3, which another token has"}},
                {"/model/merges", nullptr, errc::malformed, {"merges is null"}},
                {"/model/merges/7", "ab", errc::malformed, {"merges[7]", "is not two tokens"}},
                {"/model/merges/7", "a b c", errc::malformed, {"merges[7]", "is not two tokens"}},
                {"/model/merges/7", {"a", 1}, errc::malformed, {"merges[7]", "is not two tokens"}},
                {"/model/merges/7", {"a", "b", "c"}, errc::malformed, {"merges[7]", "is not two tokens"}},
                {"/model/merges/7", {"a", "nowhere"}, errc::malformed, {"merges[7]", "'nowhere'"}},
                {"/model/merges/7", {"~", "z"}, errc::malformed, {"merges[7]", "'~z'"}},
                {"/model/ignore_merges", 1, errc::malformed, {"ignore_merges is number"}},
                {"/model/unk_token", "nowhere", errc::malformed, {"unk_token", "'nowhere'"}},
                {"/model/unk_token", 1, errc::malformed, {"unk_token is number"}},
                {"/added_tokens", 1, errc::malformed, {"added_tokens is number"}},
                {"/added_tokens/0", 1, errc::malformed, {"added_tokens[0]", "number"}},
                {"/added_tokens/0/id", -1, errc::malformed, {"added_tokens[0]: id is '-1'"}},
                {"/added_tokens/0/id", 1 << 21, errc::malformed, {"id is '2097152'"}},
                {"/added_tokens/0/id", 5, errc::malformed, {"'<|endoftext|>' has the number 5 and 0"}},
                {"/added_tokens/0/content", "", errc::malformed, {"content is empty"}},
                {"/added_tokens/0/content", nullptr, errc::malformed, {"content is null"}},
                {"/added_tokens/0/content", "new", errc::malformed, {"'new' has the number 0, which another"}},
                {"/added_tokens/0/lstrip", 0, errc::malformed, {"lstrip is number"}}});
  json twice = tokenizer_json("llama3.json");
  twice["added_tokens"].push_back(twice["added_tokens"][0]);
  check_error(open_tokenizer(twice.dump()), errc::malformed, {"added_tokens: ", "is there twice"});
  json lacking = tokenizer_json("gpt2.json");
  lacking["model"]["vocab"].erase("ÿ");
  value_of(open_tokenizer(lacking.dump()));
  lacking["model"]["unk_token"] = "a";
  lacking["model"]["fuse_unk"] = true;
  check_error(open_tokenizer(lacking.dump()), errc::unsupported, {"model: ", "fuse_unk"});
}

TEST_CASE("templates of other shapes are refused by name") {
  const json b{{"Sequence", {{"id", "B"}, {"type_id", 0}}}};
  const json a{{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  check_broken("llama3.json",
               {{"/post_processor/single", 1, errc::malformed, {"post_processor: ", "single is number"}},
                {"/post_processor/single/0", 1, errc::malformed, {"single", "number"}},
                {"/post_processor/single/0", {{"Other", 1}}, errc::malformed, {"single", "null"}},
                {"/post_processor/single/0", b, errc::unsupported, {"another sequence"}},
                {"/post_processor/single/0", a, errc::unsupported, {"another sequence"}},
                {"/post_processor/single", json::array(), errc::unsupported, {"has no sequence A"}},
                {"/post_processor/special_tokens", 1, errc::malformed, {"'<bos>'", "number"}},
                {"/post_processor/special_tokens", json::object(), errc::malformed, {"'<bos>'", "null"}},
                {"/post_processor/special_tokens/<bos>/ids", "x", errc::malformed, {"'<bos>'", "ids is string"}},
                {"/post_processor/special_tokens/<bos>/ids/0", -1, errc::malformed, {"'<bos>'", "'-1'"}},
                {"/post_processor/special_tokens/<bos>/ids/0", 100000, errc::malformed, {"'<bos>'", "'100000'"}}});
  const json post_processor = tokenizer_json("llama3.json")["post_processor"];
  check_broken("llama3.json", {{"/post_processor",
                                sequence_of("processors", {post_processor, post_processor}),
                                errc::unsupported,
                                {"post_processor: has more than one TemplateProcessing"}}});
}

TEST_CASE("patterns that PCRE2 would read otherwise than Oniguruma, or not at all, are refused by name") {
  for (const char* pattern :
       {R"(\w+)",
        R"(\b)",
        R"(\h)",
        R"(\R)",
        R"(\K)",
        R"(a\G)",
        R"((.)\1)",
        "[a[bc]]",
        "[[:alpha:]]",
        "[a&&b]",
        "(?m:a)",
        "(?<n>a)",
        "(?#x)",
        "(*LIMIT_MATCH=9)a",
        "a{,3}",
        "a{1,2}+",
        "(a",
        "a)",
        "[a",
        "*",
        R"(\p{Nope})",
        R"(\p{L)",
        R"(\)",
        R"(\u0061)",
        "(((((((((((((a{1000}){1000}){1000}){1000}){1000}){1000}){1000}){1000}){1000}){1000}))))"}) {
    CAPTURE(pattern);
    check_error(open_changed("gpt2.json", split_by({{"Regex", pattern}})), errc::unsupported,
                {"pre_tokenizer: ", "the pattern"});
  }
  check_error(open_changed("gpt2.json", split_by({{"Regex", std::string(70'000, 'a')}})), errc::unsupported, {"70000"});
  check_error(open_changed("gpt2.json", split_by({{"String", std::string(70'000, 'a')}})), errc::unsupported,
              {"70000"});
  check_error(open_changed("gpt2.json", split_by(1)), errc::malformed, {"pattern: ", "number"});
  check_error(open_changed("gpt2.json", split_by({{"Other", "a"}})), errc::malformed, {"Regex is null"});
  json changed = split_by({{"Regex", "a"}});
  changed["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Other";
  check_error(open_changed("gpt2.json", changed), errc::unsupported, {"behavior", "'Other'"});
  changed["pre_tokenizer"]["pretokenizers"][0].erase("behavior");
  check_error(open_changed("gpt2.json", changed), errc::malformed, {"behavior is null"});
}

TEST_CASE("a pattern that runs away is an error of the text, not a crash") {
  for (const char* pattern : {"(a+)+[bc]", "(?:a|aa)+$x", "(?:(?:a?){50}){50}a{60}b", "(?:(a)|b)*[cd]"}) {
    const tokenizer tokens = value_of(open_changed("gpt2.json", split_by({{"Regex", pattern}})));
    const auto ids = tokens.encode(std::string(3'000, 'a') + "\n");
    CAPTURE(pattern);
    if (ids)
      CHECK(tokens.decode(*ids) == std::string(3'000, 'a') + "\n");
    else
      check_error(ids, errc::unsupported, {"the pattern", "fails on this text"});
  }
  const tokenizer tokens = value_of(open_changed("gpt2.json", split_by({{"Regex", "(a+)+[bc]"}})));
  CHECK_FALSE(tokens.encode(std::string(3'000, 'a')));
  CHECK(tokens.encode("aab"));
  // more groups than the compiled matcher's stack holds: the interpreter takes over
  const std::string groups = std::string(20'000, 'a') + "cx";
  const tokenizer deep = value_of(open_changed("gpt2.json", split_by({{"Regex", "(?:(a)|b)*c"}})));
  CHECK(deep.decode(value_of(deep.encode(groups))) == groups);
}

TEST_CASE("damaged tokenizer files are errors with a message, or tokenizers that work") {
  constexpr int rounds = 400;
  std::mt19937 random{20260215};
  int accepted = 0;
  const std::vector<std::string> page = sinq_test::tokenizer_page();
  for (const char* name : {"gpt2.json", "llama3.json"}) {
    const std::string good = sinq_test::read_file(tokenizer_path(name));
    const std::string components = good.substr(0, good.find("\"vocab\""));
    for (int round = 0; round < rounds; ++round) {
      // half of the damage hits the components, which are a small part of the file
      const bool early = round % 2 == 0;
      const auto opened = early ? open_tokenizer(sinq_test::mutate(components, random) + good.substr(components.size()))
                                : open_tokenizer(sinq_test::mutate(good, random));
      if (!opened) {
        CHECK(opened.error().message.find("tokenizer.json: ") != std::string::npos);
        continue;
      }
      ++accepted;
      for (const std::string& text : page)
        if (const auto ids = opened->encode(text)) CHECK(opened->decode(*ids).size() <= 3 * text.size() + 64);
    }
    for (std::size_t size = 0; size < good.size(); size += good.size() / 50)
      CHECK_FALSE(open_tokenizer(good.substr(0, size)));
  }
  CHECK(accepted > rounds / 100);
  CHECK(accepted < 2 * rounds);
}
