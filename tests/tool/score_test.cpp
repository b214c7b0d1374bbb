/// sinq score against log-likelihoods in double.

#include "golden/llama.hpp"
#include "tool/language_model.hpp"

#include <cmath>
#include <numeric>
#include <random>

using namespace sinq_test;
using nlohmann::json;

namespace {

/// The golden llama in double, by the names of its tensors; its output matrix is the embedding.
llama exact_llama(const fs::path& directory) {
  const auto reader = std::make_shared<sinq::io::model_reader>(value_of(sinq::io::model_reader::open(directory)));
  return {json::parse(read_file(directory / "config.json")), [reader](std::string name) -> std::optional<matrix64> {
            if (name == "lm_head.weight") name = "model.embed_tokens.weight";
            if (reader->find(name) == nullptr) return std::nullopt;
            const read_tensor t = read_one(*reader, name);
            const auto cols = static_cast<Eigen::Index>(t.shape.back());
            return Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>{
                t.values.data(), static_cast<Eigen::Index>(t.values.size()) / cols, cols}
                .cast<double>();
          }};
}

struct asked {
  std::string context;
  std::vector<std::string> choices;
  std::size_t gold;
};

/// Tokens of a text without what has none.
std::vector<long> tokens_of(const std::string& text) {
  std::vector<long> tokens;
  for (const char c : text)
    for (int token = 0; token < 96; ++token)
      if (character_of(token) == std::string{c}) tokens.push_back(token);
  return tokens;
}

/// log p(choice | context); the space at the context's end counts to the choice.
double score_of(const llama& m, std::string context, const std::string& choice) {
  const std::vector<long> whole = tokens_of(context + choice);
  context.resize(context.find_last_not_of(" \n") + 1);
  const matrix64 logits = m.logits(whole);
  double sum = 0;
  for (std::size_t n = tokens_of(context).size(); n < whole.size(); ++n) {
    const auto row = logits.row(static_cast<Eigen::Index>(n - 1));
    sum += row[whole[n]] - std::log(row.array().exp().sum());
  }
  return sum;
}

std::vector<asked> some_questions() {
  std::mt19937 random{7};
  const auto text = [&](std::size_t length) {
    std::string made;
    while (made.size() < length) made += character_of(static_cast<int>(random() % 96));
    return made;
  };
  std::vector<asked> questions;
  for (std::size_t n = 0; n < 24; ++n) {
    asked q{"a" + text(3 + random() % 20) + (n % 3 == 0 ? "b  " : "b"), {}, 0};
    for (std::size_t c = 0; c < 2 + n % 4; ++c) q.choices.push_back(text(1 + random() % 8) + (c == 1 ? "\u00e9" : ""));
    q.gold = random() % q.choices.size();
    questions.push_back(q);
  }
  return questions;
}

/// How often the choice with the largest score is right, and the standard error of that; sizes divide scores.
struct share {
  double mean, standard_error;
};
share right_of(const std::vector<asked>& questions, const std::vector<std::vector<double>>& scores) {
  double right = 0;
  const double count = static_cast<double>(questions.size());
  for (std::size_t n = 0; n < questions.size(); ++n) {
    std::vector<double> sorted = scores[n];
    std::sort(sorted.rbegin(), sorted.rend());
    REQUIRE(sorted[0] - sorted[1] > 2e-3); // no tie that rounding in the engine, 4e-5 a token, could turn over
    right += scores[n][questions[n].gold] == sorted[0] ? 1 : 0;
  }
  const double mean = right / count;
  return {mean, std::sqrt(mean * (1 - mean) / (count - 1))};
}

double length_in_characters(const std::string& choice) {
  return static_cast<double>(choice.size() - (choice.ends_with("\u00e9") ? 1 : 0));
}

std::string line_of(const asked& q) {
  return json{{"query", q.context}, {"choices", q.choices}, {"gold", q.gold}}.dump() + "\n";
}

} // namespace

TEST_CASE("score counts the answers that log-likelihoods in double give") {
  const scratch dir;
  const fs::path model = make_language_model(dir / "model", "llama");
  const llama exact = exact_llama(model);
  const std::vector<asked> questions = some_questions();
  std::string lines = "\n";
  std::vector<std::vector<double>> scores, normalized;
  for (const asked& q : questions) {
    lines += line_of(q);
    scores.emplace_back();
    normalized.emplace_back();
    for (const std::string& choice : q.choices) {
      scores.back().push_back(score_of(exact, q.context, " " + choice));
      normalized.back().push_back(scores.back().back() / length_in_characters(choice));
    }
  }
  write_file(dir / "q.jsonl", lines);
  const std::string out = run_well({"score", model.string(), (dir / "q.jsonl").string(), "--quiet"}).out;
  const auto check = [&](const std::string& word, const share& expected) {
    CAPTURE(out, word);
    CHECK(std::fabs(number_after(out, word) - expected.mean) <= 5.1e-5);
    CHECK(std::fabs(number_after(out.substr(out.find(word)), "+- ") - expected.standard_error) <= 5.1e-5);
  };
  const share acc = right_of(questions, scores), acc_norm = right_of(questions, normalized);
  check("acc ", acc);
  check("acc_norm ", acc_norm);
  CHECK(out.find("over 24 questions") != std::string::npos);
  // planted bugs: sums that are not divided, or divided by bytes, and the next choice taken for the right one
  CHECK(acc.mean != acc_norm.mean);
  std::vector<asked> shifted = questions;
  for (asked& q : shifted) q.gold = (q.gold + 1) % q.choices.size();
  CHECK(right_of(shifted, scores).mean != acc.mean);
}

TEST_CASE("score takes the names of HellaSwag, another delimiter, a limit, and models that are quantized") {
  const scratch dir;
  const std::string model = make_language_model(dir / "model", "llama").string(), file = (dir / "q.jsonl").string();
  const std::vector<asked> questions = some_questions();
  std::string ours, theirs;
  for (const asked& q : questions) {
    ours += line_of(q);
    theirs += json{{"ctx", q.context}, {"endings", q.choices}, {"label", std::to_string(q.gold)}, {"ind", 4}}.dump();
    theirs += "\r\n";
  }
  const auto score = [&](const std::string& lines, const std::vector<std::string>& options = {}) {
    write_file(file, lines);
    std::vector<std::string> arguments{"score", model, file, "--quiet"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    const std::string out = run_well(arguments).out;
    return out.substr(0, out.rfind(", ")); // without the speed
  };
  CHECK(score(ours) == score(theirs));
  CHECK(score(ours, {"--limit", "5"}).find("over 5 questions") != std::string::npos);
  // a context's space counts to the choices: the delimiter may stand on either side
  std::string spaced;
  for (asked q : questions) {
    q.context += " ";
    spaced += line_of(q);
  }
  CHECK(score(spaced, {"--delimiter", ""}) == score(ours));
  CHECK(score(ours, {"--delimiter", "zzzz"}) != score(ours));
  CHECK(score(ours, {"--method", "rtn", "--bits", "2", "--group-size", "32"}) != score(ours));
}

TEST_CASE("questions that make no sense are refused, naming file and line") {
  const scratch dir;
  const std::string model = make_language_model(dir / "model", "llama").string(), file = (dir / "q.jsonl").string();
  const auto refused = [&](const std::string& line, const std::vector<std::string>& pieces) {
    write_file(file, line_of({"a", {"b", "c"}, 0}) + line + "\n");
    std::vector<std::string> all{"q.jsonl:2: "};
    all.insert(all.end(), pieces.begin(), pieces.end());
    run_badly({"score", model, file, "--quiet"}, all);
  };
  refused("{\"query\": ", {"not valid JSON"});
  refused("[1]", {"is array, expected an object"});
  refused(std::string(40, '[') + std::string(40, ']'), {"nested 40 levels"});
  refused(R"({"choices": ["b", "c"], "gold": 0})", {"none of the members query, context, question, ctx"});
  refused(R"({"query": "a", "gold": 0})", {"none of the members choices, endings"});
  refused(R"({"query": "a", "choices": ["b", "c"]})", {"none of the members gold, answer, label"});
  refused(R"({"query": 3, "choices": ["b", "c"], "gold": 0})", {"query is number, expected a string"});
  refused(R"({"query": "a", "choices": {"text": ["b"]}, "gold": 0})", {"choices is object, expected a list"});
  refused(R"({"query": "a", "choices": ["b", null], "gold": 0})", {"choices has null at 1"});
  refused(R"({"query": "a", "choices": ["b", ""], "gold": 0})", {"choices has an empty string at 1"});
  refused(R"({"query": "a", "choices": ["b"], "gold": 0})", {"has 1 choices, expected at least 2"});
  for (const char* const gold : {"2", "-1", "1.0", "true", "null", "\"2\"", "\"B\"", "\"\"", "18446744073709551616"})
    refused(std::string{R"({"query": "a", "choices": ["b", "c"], "gold": )"} + gold + "}", {"gold is '", "2 choices"});
  refused(R"({"query": " \n", "choices": ["b", "c"], "gold": 0})", {"the context has no tokens"});
  refused(R"({"query": "a", "choices": ["b", ")" + std::string(127, 'c') + R"("], "gold": 0})",
          {"has 129 tokens", "context of 128"});
  run_badly({"score", model, (dir / "none").string()}, {"none"});
  write_file(file, "\n \n");
  run_badly({"score", model, file}, {"q.jsonl: has no questions"});
  write_file(file, line_of({"a", {"b", std::string(126, 'c')}, 0}));
  run_well({"score", model, file, "--quiet"});
}
